//! The command line against a control plane whose answers are written here.

mod changing;
mod editing;
mod looking;
mod placed;
mod planned;
mod reaching;
mod real;
mod scripted;
mod terminals;
mod texts;
