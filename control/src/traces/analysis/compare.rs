//! Two windows of time, side by side.
