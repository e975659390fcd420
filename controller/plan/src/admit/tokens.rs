//! Join tokens: made by admins, used once.

use lockstep_model::identity::{Principal, Subject, Token, TokenFor, User};
use lockstep_model::label::LABELS_MAX;
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::sync::{Sync, TargetAt};
use lockstep_model::{Code, Invalid, KeyHash, Millis, NodeName, Reject, Timestamp, TokenId};

use super::{Admitted, NODES_MAX, TOKENS_MAX, check_room, precondition, users};
use crate::World;
use crate::authorize::authenticate;

pub const TOKEN_TTL_MIN: Millis = Millis::from_secs(1);
pub const TOKEN_TTL_MAX: Millis = Millis::from_secs(24 * 3600);
pub const TOKEN_TTL_DEFAULT: Millis = Millis::from_secs(15 * 60);

pub(super) fn create(
    world: &World,
    id: &TokenId,
    secret_sha256: [u8; 32],
    grants: &TokenFor,
    ttl: Millis,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    if ttl < TOKEN_TTL_MIN || ttl > TOKEN_TTL_MAX {
        let problem = format!("must be {TOKEN_TTL_MIN} to {TOKEN_TTL_MAX}, not {} ms", ttl.0);
        return Err(Invalid::new("ttl", problem).into());
    }
    match grants {
        TokenFor::Node { name, labels } => {
            check_name_is_free(world, name)?;
            check_room("nodes", world.nodes().len(), NODES_MAX)?;
            if labels.len() > LABELS_MAX {
                let problem = format!("must be at most {LABELS_MAX}, not {}", labels.len());
                return Err(Invalid::new("labels", problem).into());
            }
        }
        TokenFor::User { name } => check_enabled(users::find(world, name)?)?,
    }
    if world.tokens().contains_key(id) {
        let message = format!("token {id} exists: draw another id");
        return Err(Reject::exists(format!("token/{id}"), message));
    }
    check_room("tokens", world.tokens().len(), TOKENS_MAX)?;
    let token = Token {
        id: id.clone(),
        secret_sha256,
        grants: grants.clone(),
        created_at: now,
        expires_at: now + ttl,
        used_by: None,
    };
    let detail = format!("token {id} lets {} in until {}", grants.subject(), token.expires_at);
    Ok(Admitted::put(Record::Token(token), detail))
}

pub(super) fn delete(world: &World, id: &TokenId) -> Result<Admitted, Reject> {
    if !world.tokens().contains_key(id) {
        let message = format!("token {id} does not exist: see lockstepctl token list");
        return Err(Reject::not_found(format!("token/{id}"), message));
    }
    let writes = vec![Write::Delete(Key::Token(id.clone()))];
    Ok(Admitted { writes, detail: format!("token {id} deleted"), ..Admitted::default() })
}

/// The same key may come again until the token expires, so that a lost answer costs nothing.
pub(super) fn enroll(
    world: &World,
    id: &TokenId,
    secret_sha256: &[u8; 32],
    key_hash: KeyHash,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let refused = |reason, message: String| {
        Reject::new(Code::Unauthenticated, reason, format!("token/{id}"), message)
    };
    // One answer for an unknown id and a wrong secret: it says nothing about which ids exist.
    let known = world.tokens().get(id).map(|token| &token.value);
    let Some(token) = known.filter(|token| token.secret_sha256 == *secret_sha256) else {
        let message = "the token is not known: it was mistyped, deleted, or expired long ago; ask \
                       an admin for a new one";
        return Err(refused("token_unknown", message.to_owned()));
    };
    if now >= token.expires_at {
        let message =
            format!("the token expired at {}: ask an admin for a new one", token.expires_at);
        return Err(refused("token_expired", message));
    }
    let subject = token.grants.subject();
    if let Some(used_by) = token.used_by {
        if used_by != key_hash {
            let message = "the token was used by another key: ask an admin for a new one";
            return Err(refused("token_used", message.to_owned()));
        }
        check_still_its_key(world, &subject, key_hash)?;
        return Ok(Admitted::already(format!("{subject} joined with this token already")));
    }
    check_key_is_new(world, &subject, key_hash)?;
    let record = match &token.grants {
        TokenFor::Node { name, labels } => {
            check_name_is_free(world, name)?;
            check_room("nodes", world.nodes().len(), NODES_MAX)?;
            if world.tasks_of(name).next().is_some() {
                // They would count as this node's, which was never told of them.
                let message = format!("a removed node {name} is being forgotten: try again");
                let subject = format!("node/{name}");
                return Err(Reject::new(Code::Unavailable, "node_leaving", subject, message));
            }
            Record::Node(Node {
                name: name.clone(),
                labels: labels.clone(),
                admin: NodeAdmin::Enabled,
                key_hash,
                addresses: Vec::new(),
                created_at: now,
            })
        }
        TokenFor::User { name } => {
            let user = users::find(world, name)?;
            check_enabled(user)?;
            Record::User(User { key_hash: Some(key_hash), ..user.clone() })
        }
    };
    let token = Token { used_by: Some(key_hash), ..token.clone() };
    let writes = vec![Write::Put(Record::Token(token)), Write::Put(record)];
    Ok(Admitted { writes, detail: format!("{subject} joined"), ..Admitted::default() })
}

/// Neither a node's, nor that of a target without an agent: one name is one machine.
fn check_name_is_free(world: &World, name: &NodeName) -> Result<(), Reject> {
    let mut syncs = world.syncs().values().map(|sync| &sync.value);
    let remote = |sync: &&Sync| {
        sync.target(name).is_some_and(|target| matches!(target.at, TargetAt::Remote(_)))
    };
    if let Some(sync) = syncs.find(remote) {
        let message = format!(
            "sync {0} has a target without an agent that is called {name}: choose another name, or \
             to give that machine an agent: lockstepctl sync remove-target {0} {name}, and add it \
             again once it has joined",
            sync.name
        );
        return Err(Reject::new(
            Code::AlreadyExists,
            "name_in_use",
            format!("node/{name}"),
            message,
        ));
    }
    let Some(node) = world.nodes().get(name) else { return Ok(()) };
    let next = match node.value.admin {
        NodeAdmin::Expelled => format!("free the name with lockstepctl node remove {name}"),
        _ => format!(
            "choose another name, or to replace the machine: lockstepctl node expel {name}, then \
             node remove {name}"
        ),
    };
    let message = format!("node {name} has joined already: {next}");
    Err(Reject::new(Code::AlreadyExists, "node_exists", format!("node/{name}"), message))
}

fn check_enabled(user: &User) -> Result<(), Reject> {
    if !user.disabled {
        return Ok(());
    }
    let message = format!("user {} is disabled: enable it first", user.name);
    Err(precondition("user_disabled", format!("user/{}", user.name), message))
}

/// The token was used, and then perhaps the node expelled or the user given another key.
fn check_still_its_key(world: &World, subject: &Subject, key: KeyHash) -> Result<(), Reject> {
    let principal = Principal { subject: subject.clone(), key_hash: key };
    authenticate(world, &principal).map(|_| ())
}

/// One key, one name: a copied state directory does not become a second node.
fn check_key_is_new(world: &World, subject: &Subject, key: KeyHash) -> Result<(), Reject> {
    let nodes = world.nodes().values().map(|node| &node.value);
    let users = world.users().values().map(|user| &user.value);
    let nodes = nodes.filter(|n| n.key_hash == key).map(|n| Subject::Node(n.name.clone()));
    let users = users.filter(|u| u.key_hash == Some(key)).map(|u| Subject::User(u.name.clone()));
    let Some(holder) = nodes.chain(users).find(|holder| holder != subject) else { return Ok(()) };
    let message = format!(
        "the key belongs to {holder}: each node and user needs its own; was the state directory \
         copied? Start with an empty one"
    );
    Err(Reject::new(Code::AlreadyExists, "key_in_use", holder, message))
}
