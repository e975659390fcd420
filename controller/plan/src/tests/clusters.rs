//! Clusters under their rules: stories of single events, and laws of random histories, on a model of
//! agents and databases.

mod checks;
mod host;
mod laws;
mod old_store;
mod sim;
mod stories;
