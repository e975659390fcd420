//! A mirror's pulls as far as rsync alone is concerned: what the options, the arguments and the
//! output of each step are to the rsync that is installed. No agent and no controller is there.

#![allow(clippy::unwrap_used)] // nothing but tests

mod courses;
mod daemon;
mod ends;
mod options;
