//! Laws of a world and of a plan, for tests and debug builds.

use crate::{Plan, World};

/// What is broken, one line each.
pub fn check_world(_world: &World) -> Vec<String> {
    Vec::new()
}

/// What is broken in a plan made of this world, one line each.
pub fn check_plan(_world: &World, _plan: &Plan) -> Vec<String> {
    Vec::new()
}
