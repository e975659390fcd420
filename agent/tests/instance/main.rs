//! Instances with the PostgreSQL that is installed: started by the agent's own binary, in cgroups of
//! their own. No agent and no controller is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod bed;
mod debian;
mod life;
mod settings;
mod standbys;
mod survey;
mod troubles;
