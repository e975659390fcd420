//! Sends spans to a collector over OTLP/gRPC in batches, from threads of its own, so that neither a
//! slow collector nor the program's runtime can hold the other up. A full queue drops spans.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    RetryPolicy, SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::{Builder, Runtime};

use super::{TelemetryError, check_endpoint};

/// The most spans that wait; more are dropped.
const SPANS_MAX: usize = 4096;
const BATCH_MAX: usize = 512;
const BATCH_INTERVAL: Duration = Duration::from_secs(2);
/// One attempt; a failed batch is not kept.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the end of the process waits for the last batch.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The pipeline from spans to the collector; ends with a flush when dropped.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    /// Drives the channel; Some until dropped.
    runtime: Option<Runtime>,
}

impl Exporter {
    pub(super) fn start(
        service: &'static str,
        endpoint: &str,
        node: Option<&str>,
    ) -> Result<Self, TelemetryError> {
        let refuse =
            |problem: String| TelemetryError::Endpoint { endpoint: endpoint.into(), problem };
        check_endpoint(endpoint).map_err(refuse)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        let exporter = Announcing::connect(endpoint, &runtime).map_err(refuse)?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_INTERVAL)
            .build();
        let mut resource = Resource::builder_empty()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if let Some(node) = node {
            resource =
                resource.with_attribute(KeyValue::new("service.instance.id", node.to_owned()));
        }
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource.build())
            .build();
        Ok(Self { provider, runtime: Some(runtime) })
    }

    pub(super) fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // A collector that does not answer was told of already; the spans are lost.
        let _ = self.provider.shutdown_with_timeout(FLUSH_MAX);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Tells the log once when the collector stops taking spans, and once when it takes them again.
#[derive(Debug)]
pub(super) struct Announcing {
    exporter: OtlpExporter,
    endpoint: String,
    failing: AtomicBool,
}

impl Announcing {
    /// Connects when there is something to send; the runtime drives the connection.
    pub(super) fn connect(endpoint: &str, runtime: &Runtime) -> Result<Self, String> {
        let _entered = runtime.enter();
        let exporter = OtlpExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { exporter, endpoint: endpoint.into(), failing: false.into() })
    }
}

impl SpanExporter for Announcing {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let sending = self.exporter.export(batch);
        async {
            let result = sending.await;
            let failed = result.is_err();
            if self.failing.swap(failed, Ordering::Relaxed) != failed {
                let endpoint = self.endpoint.as_str();
                match &result {
                    Err(error) => {
                        tracing::warn!(endpoint, %error, "collector takes no spans; dropping them")
                    }
                    Ok(()) => tracing::info!(endpoint, "collector takes spans again"),
                }
            }
            result
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
