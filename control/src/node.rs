//! `pilotfish node`: the process on each machine that starts and stops agents with their sidecars.
