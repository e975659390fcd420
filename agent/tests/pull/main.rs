//! A mirror's pulls as far as rsync alone is concerned: what the options, the arguments and the
//! output of each step are to the rsync that is installed. No agent and no controller is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // nothing but tests

mod courses;
mod daemon;
mod ends;
mod options;
