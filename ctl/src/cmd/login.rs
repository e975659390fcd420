//! `lockstepctl login`: a single-use token becomes a key and a context of this machine.

use lockstep_model::identity::Subject;
use lockstep_proto::v1;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_transport::dial;
use lockstep_transport::identity::{Identity, disk};
use lockstep_transport::tls::Caller;
use lockstep_transport::token::{FOR_NODE, JoinToken};

use crate::args::{Global, Login};
use crate::client::Trace;
use crate::cmd::secret;
use crate::context::Contexts;
use crate::error::Failure;
use crate::render;

pub async fn run(global: &Global, login: Login) -> Result<(), Failure> {
    let Login { controller, token, name } = login;
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("--token: {e}"));
    let token = match token.as_str() {
        "-" => secret::of_stdin("Token").map_err(|e| wrong(&e))?,
        _ => token,
    };
    let token: JoinToken = token.trim().parse().map_err(|e| wrong(&e))?;
    if token.id().as_str().starts_with(FOR_NODE) {
        return Err(Failure::usage("this token is for a node; give it to lockstep-agent join"));
    }
    let contexts = Contexts::open(global.config_dir.as_deref())?;
    // A lost answer may be asked for again, but only by the same key: it waits here meanwhile.
    let waiting = contexts.waiting(&token)?;
    let key = disk::load_or_make_key(&waiting).map_err(|e| Failure::usage(e.to_string()))?;
    let failed = |e: &dyn std::fmt::Display| Failure::failed(e.to_string());

    let caller = Caller::Guest { root_sha256: token.root_sha256() };
    let channel = dial::connect(&controller, &caller).await?;
    let request = v1::EnrollRequest {
        token_id: token.id().to_string(),
        token_secret: token.secret().to_vec(),
        csr: key.request().map_err(|e| failed(&e))?,
    };
    let answer = EnrollmentServiceClient::with_interceptor(channel, Trace)
        .enroll(request)
        .await?
        .into_inner();
    let roots = answer.trust_bundle.unwrap_or_default().roots;
    let identity = Identity::from_der(key, answer.chain, roots).map_err(|e| failed(&e))?;
    let Subject::User(user) = &identity.spiffe.subject else {
        return Err(Failure::usage(format!(
            "this token is for {}; give it to lockstep-agent join",
            identity.spiffe.subject
        )));
    };
    let name = name.unwrap_or_else(|| identity.spiffe.fleet.to_string());
    contexts.save(&name, &identity, &controller)?;
    contexts.set_current(&name)?;
    contexts.forget_waiting(&waiting)?;
    render::note(&format!("logged in as {user}; context {name} is the current one"));
    Ok(())
}
