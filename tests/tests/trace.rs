//! One command, one trace: the spans of lockstepctl, the controller and the agents meet in a
//! collector under one id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::{Flags, Fleet, Host, Net, until};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Exporters send in batches of some seconds.
const EXPORTED_WITHIN: Duration = Duration::from_secs(30);
const OTLP_PORT: u16 = 4317;

/// (trace id, service) of each span, with the names seen there.
type Seen = BTreeMap<(Vec<u8>, String), BTreeSet<String>>;

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Seen>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in request.into_inner().resource_spans {
            let attributes = batch.resource.unwrap_or_default().attributes;
            let service = attributes.iter().find(|a| a.key == "service.name");
            let service = match service.and_then(|a| a.value.clone()?.value) {
                Some(Value::StringValue(text)) => text,
                _ => String::new(),
            };
            for span in batch.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                seen.entry((span.trace_id, service.clone())).or_default().insert(span.name);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

impl Collector {
    /// Serves on a host for as long as the test lives.
    fn start(host: &Host) -> Result<Self> {
        let listener = host.enter(|| std::net::TcpListener::bind(host.at(OTLP_PORT)))??;
        listener.set_nonblocking(true)?;
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener)?);
                let server = tonic::transport::Server::builder().add_service(service);
                Ok(server.serve_with_incoming(incoming).await?)
            })
        });
        Ok(collector)
    }

    /// The services of each trace in which lockstepctl did something.
    fn of_ctl(&self) -> Vec<BTreeMap<String, BTreeSet<String>>> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = seen.keys().filter(|(_, service)| service == "lockstepctl").map(|(id, _)| id);
        ids.map(|wanted| {
            let of = seen.iter().filter(|((id, _), _)| id == wanted);
            of.map(|((_, service), names)| (service.clone(), names.clone())).collect()
        })
        .collect()
    }
}

#[test]
fn one_command_is_one_trace_through_all_programs() -> Result<()> {
    let net = Net::new()?;
    let host = net.host("collector")?;
    let collector = Collector::start(&host)?;
    let flag = || vec![format!("--otlp-endpoint=http://{}", host.at(OTLP_PORT))];
    let flags = Flags { controller: flag(), agent: flag(), ctl: flag(), ..Flags::default() };
    let fleet = Fleet::start_with(&net, &["master1", "web1"], flags)?;
    fleet.sync_www("master1", &["web1"])?;
    until(EXPORTED_WITHIN, "one trace holds all three programs", || -> Result<()> {
        let traces = collector.of_ctl();
        let whole = traces.iter().any(|trace| {
            let has = |service: &str| trace.contains_key(service);
            has("lockstep-controller") && has("lockstep-agent")
        });
        ensure!(whole, "{traces:?}");
        Ok(())
    });
    Ok(())
}
