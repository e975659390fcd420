//! Who may do what with a mirror besides operators: its owner, but for where it is and whose.

use lockstep_model::identity::{Role, Subject};
use lockstep_model::mirror::Mirror;
use lockstep_model::record::Actor;
use lockstep_model::request::MirrorChange;
use lockstep_model::{Code, MirrorName, Reject};

use crate::World;

/// Where a mirror's trees are and whose it is decide those who run the fleet.
pub(super) fn check_placement(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    change: &MirrorChange,
) -> Result<(), Reject> {
    let MirrorChange {
        values: _,
        upstream: _,
        password: _,
        master,
        dest,
        replicas,
        selected,
        owner,
    } = change;
    let field = [
        ("master", master.is_some()),
        ("dest", dest.is_some()),
        ("replicas", replicas.is_some()),
        ("selector", selected.is_some()),
        ("owner", owner.is_some()),
    ];
    let Some((field, _)) = field.into_iter().find(|(_, given)| *given) else { return Ok(()) };
    if role(world, who) != Some(Role::Owner) {
        return Ok(());
    }
    let message = format!("{field} of mirror {name} is for operators to change, not for its owner");
    Err(Reject::new(Code::PermissionDenied, "not_allowed", format!("mirror/{name}"), message))
}

fn role(world: &World, who: &Actor) -> Option<Role> {
    match who {
        Actor::Subject(Subject::User(user)) => Some(world.users().get(user)?.value.role),
        _ => None,
    }
}

/// Operators may do this with every mirror, others with those that they own.
pub(super) fn check_owner(world: &World, who: &Actor, mirror: &Mirror) -> Result<(), Reject> {
    let may = match who {
        Actor::Planner | Actor::Offline => true,
        Actor::Subject(Subject::User(user)) => match role(world, who) {
            Some(Role::Admin | Role::Operator) => true,
            Some(Role::Owner) => mirror.owner.as_ref() == Some(user),
            Some(Role::Viewer) | None => false,
        },
        Actor::Subject(Subject::Node(_) | Subject::Controller(_)) | Actor::Anonymous => false,
    };
    if may {
        return Ok(());
    }
    let name = &mirror.name;
    let message = format!(
        "mirror {name} is not {who}'s: its owner and operators may do this; an operator names another \
         owner with lockstepctl mirror update {name} --owner"
    );
    Err(Reject::new(Code::PermissionDenied, "not_yours", format!("mirror/{name}"), message))
}
