//! Users and their roles.

use lockstep_model::identity::{Role, User};
use lockstep_model::record::Record;
use lockstep_model::{Reject, Timestamp, UserName};

use super::{Admitted, USERS_MAX, check_room, precondition};
use crate::World;

pub(super) fn add(
    world: &World,
    name: &UserName,
    role: Role,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    if let Some(user) = world.users().get(name) {
        if user.value.role == role && !user.value.disabled {
            return Ok(Admitted::already(format!("user {name} has the role {role} already")));
        }
        let state = if user.value.disabled { "disabled" } else { "enabled" };
        let message = format!(
            "user {name} exists, {state}, with the role {}: change that instead",
            user.value.role
        );
        return Err(Reject::exists(format!("user/{name}"), message));
    }
    check_room("users", world.users().len(), USERS_MAX)?;
    let user = User { name: name.clone(), role, disabled: false, key_hash: None, created_at: now };
    Ok(Admitted::put(Record::User(user), format!("user {name} added as {role}")))
}

pub(super) fn set_role(world: &World, name: &UserName, role: Role) -> Result<Admitted, Reject> {
    let user = find(world, name)?;
    if user.role == role {
        return Ok(Admitted::already(format!("user {name} has the role {role} already")));
    }
    let changed = User { role, ..user.clone() };
    check_admin_is_left(world, &changed)?;
    Ok(Admitted::put(Record::User(changed), format!("user {name} is {role} now")))
}

pub(super) fn set_disabled(
    world: &World,
    name: &UserName,
    disabled: bool,
) -> Result<Admitted, Reject> {
    let user = find(world, name)?;
    let state = if disabled { "disabled" } else { "enabled" };
    if user.disabled == disabled {
        return Ok(Admitted::already(format!("user {name} is {state} already")));
    }
    let changed = User { disabled, ..user.clone() };
    check_admin_is_left(world, &changed)?;
    Ok(Admitted::put(Record::User(changed), format!("user {name} is {state}")))
}

pub(super) fn find<'a>(world: &'a World, name: &UserName) -> Result<&'a User, Reject> {
    world.users().get(name).map(|user| &user.value).ok_or_else(|| {
        let message = format!("user {name} does not exist: see lockstepctl user list");
        Reject::not_found(format!("user/{name}"), message)
    })
}

/// An admin who can call: enabled, and with a key.
fn is_working_admin(user: &User) -> bool {
    user.role == Role::Admin && !user.disabled && user.key_hash.is_some()
}

/// Without an admin nobody could ever make one again.
fn check_admin_is_left(world: &World, changed: &User) -> Result<(), Reject> {
    let before = world.users().get(&changed.name).is_some_and(|u| is_working_admin(&u.value));
    if !before || is_working_admin(changed) {
        return Ok(());
    }
    let other = |user: &User| user.name != changed.name && is_working_admin(user);
    if world.users().values().any(|user| other(&user.value)) {
        return Ok(());
    }
    let message =
        format!("user {} is the last admin who can call: make another first", changed.name);
    Err(precondition("last_admin", format!("user/{}", changed.name), message))
}
