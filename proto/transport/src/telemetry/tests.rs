//! Telemetry against a real OTLP receiver, and logs read back.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::subscriber::with_default;

use super::*;
use crate::settings::Table;

/// A real OTLP/gRPC receiver on loopback, which keeps (service, node, span).
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, String, OtlpSpan)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for batch in request.into_inner().resource_spans {
            let attributes = batch.resource.unwrap_or_default().attributes;
            let attribute = |key: &str| {
                let found = attributes.iter().find(|attribute| attribute.key == key);
                match found.and_then(|found| found.value.clone()?.value) {
                    Some(Value::StringValue(text)) => text,
                    _ => String::new(),
                }
            };
            let (service, node) = (attribute("service.name"), attribute("service.instance.id"));
            let spans = batch.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let kept = spans.map(|span| (service.clone(), node.clone(), span));
            self.spans.lock().unwrap().extend(kept);
        }
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self::default();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, address)
    }

    fn named(&self, name: &str) -> (String, String, OtlpSpan) {
        let spans = self.spans.lock().unwrap();
        spans.iter().find(|(_, _, span)| span.name == name).cloned().expect(name)
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn process(
    service: &'static str,
    options: &Options,
) -> (impl Subscriber + Send + Sync + use<>, Guard, Lines) {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, guard) = build(service, options, false, move || writer.clone()).unwrap();
    (subscriber, guard, lines)
}

fn to_collector(address: impl std::fmt::Display, node: &str) -> Options {
    Options {
        filter: "trace".into(),
        otlp_endpoint: Some(format!("http://{address}")),
        node: Some(node.into()),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_in_another_process_has_the_same_trace() {
    let (collector, address) = Collector::start().await;
    let (controller, controller_guard, _) =
        process("lockstep-controller", &to_collector(address, "c1"));
    let (agent, agent_guard, _) = process("lockstep-agent", &to_collector(address, "web1"));

    let mut metadata = MetadataMap::new();
    let task = with_default(controller, || {
        let request = tracing::info_span!("create_sync");
        let _entered = request.enter();
        inject_traceparent(&mut metadata);
        current_traceparent().unwrap()
    });
    assert_eq!(extract_traceparent(&metadata), Some(task.as_str()));
    with_default(agent, || {
        let run = tracing::info_span!("run_task");
        set_parent(&run, &task);
        run.in_scope(|| tracing::info_span!("rsync").in_scope(|| {}));
        let stray = tracing::info_span!("stray");
        set_parent(&stray, "00-garbage");
        stray.in_scope(|| {});
    });
    // Dropping a guard sends what is left; on a runtime's own thread as well.
    drop(controller_guard);
    drop(agent_guard);

    let (service, node, request) = collector.named("create_sync");
    assert_eq!((service.as_str(), node.as_str()), ("lockstep-controller", "c1"));
    let (service, node, run) = collector.named("run_task");
    assert_eq!((service.as_str(), node.as_str()), ("lockstep-agent", "web1"));
    assert_eq!(run.trace_id, request.trace_id);
    assert_eq!(run.parent_span_id, request.span_id);
    let (_, _, rsync) = collector.named("rsync");
    assert_eq!((rsync.trace_id, rsync.parent_span_id), (request.trace_id.clone(), run.span_id));
    let (_, _, stray) = collector.named("stray");
    assert_ne!(stray.trace_id, request.trace_id);
    assert!(stray.parent_span_id.is_empty());
}

#[tokio::test]
async fn a_dead_collector_costs_one_line_and_no_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let (subscriber, guard, _) = process("lockstep-agent", &to_collector(dead, "web1"));
    let begun = Instant::now();
    with_default(subscriber, || {
        for _ in 0..20_000 {
            tracing::info_span!("work").in_scope(|| {});
        }
    });
    drop(guard);
    let took = Instant::now().duration_since(begun);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_the_end_up() {
    // Accepts in the kernel's backlog; nobody ever reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (subscriber, guard, _) =
        process("lockstep-agent", &to_collector(listener.local_addr().unwrap(), "web1"));
    with_default(subscriber, || tracing::info_span!("work").in_scope(|| {}));
    let begun = Instant::now();
    drop(guard);
    let took = Instant::now().duration_since(begun);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn an_outage_is_told_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let exporter = otlp::Announcing::connect(&format!("http://{dead}"), &runtime).unwrap();
    let (subscriber, _guard, lines) = process("lockstep-agent", &Options::default());
    with_default(subscriber, || {
        let export = || runtime.block_on(exporter.export(Vec::new()));
        assert!(export().is_err());
        assert!(lines.text().contains("collector takes no spans"), "{}", lines.text());
        for _ in 0..3 {
            assert!(export().is_err());
        }
        assert_eq!(lines.text().matches("collector takes no spans").count(), 1, "{}", lines.text());
        let listener = std::net::TcpListener::bind(dead).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let service = TraceServiceServer::new(Collector::default());
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        assert!((0..100).any(|_| export().is_ok()));
        let told = lines.text();
        assert!(export().is_ok() && export().is_ok());
        assert_eq!(lines.text(), told);
        assert_eq!(lines.text().matches("takes spans again").count(), 1, "{}", lines.text());
    });
}

#[test]
fn lines_are_json_or_human_and_filtered() {
    let speak = |options: Options| {
        let (subscriber, _guard, lines) = process("lockstep-agent", &options);
        with_default(subscriber, || {
            let _span = tracing::info_span!("task", id = 7).entered();
            tracing::info!(path = "/srv/\u{1b}[31mwww", "delivered\nforged");
            tracing::debug!("detail");
            tracing::info!(target: "h2::proto", "frame");
            tracing::warn!(target: "h2::proto", "reset");
            assert_eq!(current_traceparent(), None);
        });
        lines.text()
    };
    let json = speak(Options::default());
    let lines: Vec<_> = json.lines().collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert!(
        lines[0].starts_with('{') && lines[0].contains(r#""message":"delivered\nforged""#),
        "{json}"
    );
    assert!(lines[0].contains(r#""id":7"#), "{json}");
    assert!(lines[1].contains("reset"), "{json}");

    let human = speak(Options {
        format: Format::Human,
        filter: "debug,h2=info".into(),
        ..Options::default()
    });
    assert!(human.contains("detail") && human.contains("frame"), "{human}");
    assert!(!human.contains('\u{1b}'), "{human}");
}

#[test]
fn a_broken_stderr_is_survived() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (subscriber, _guard) = build("x", &Options::default(), true, || Broken).unwrap();
    with_default(subscriber, || tracing::info!("unheard"));
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    let refused = |options: Options| {
        let result = build("x", &options, false, std::io::sink);
        result.map(drop).unwrap_err().to_string()
    };
    let filter = refused(Options { filter: "info,agent=loud".into(), ..Options::default() });
    assert!(filter.contains("info,agent=loud"), "{filter}");
    assert!(check_filter("lockstep_agent=debug,info").is_ok());
    assert!(check_filter("x=loud").is_err());
    for endpoint in ["https://c:4317", "c:4317", "http://c", "http://", "http://a b:1"] {
        let options = Options { otlp_endpoint: Some(endpoint.into()), ..Options::default() };
        assert!(refused(options).contains(endpoint), "{endpoint}");
    }
    let table = Table {
        program: "x",
        settings: &[LOG_FILTER, LOG_FORMAT, OTLP_ENDPOINT],
        other_variables: &[],
    };
    table.check().unwrap();
    let options = Options::from_values(&table.load(None, [], []).unwrap(), None).unwrap();
    assert_eq!(
        (options.filter.as_str(), options.format, options.otlp_endpoint),
        ("info", Format::Auto, None)
    );
    assert_eq!("json".parse(), Ok(Format::Json));
    assert!("yaml".parse::<Format>().is_err());
}
