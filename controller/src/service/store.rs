//! StoreService: a copy of everything, and accepting an old one.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt;
use lockstep_model::record::{Key, Record};
use lockstep_model::request::Request as Wish;
use lockstep_model::{Code, Reject, Revision};
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use lockstep_proto::v1::store_service_server::StoreService;
use lockstep_transport::clock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::{Answer, Answers, Api, answer, open, result};
use crate::identity::draw;
use crate::store::export::{Header, Writer};
use crate::store::{ChangesError, Snapshot, Store, StoreError};

/// Most bytes of one piece of an export.
const PIECE_BYTES: usize = 256 << 10;
/// Most pieces that wait for a reader.
const PIECES_MAX: usize = 4;

#[tonic::async_trait]
impl StoreService for Api {
    type ExportStoreStream = Answers<v1::ExportStoreResponse>;

    async fn export_store(
        &self,
        request: Request<v1::ExportStoreRequest>,
    ) -> Answer<Self::ExportStoreStream> {
        answer(self.export(request))
    }

    async fn adopt_store(
        &self,
        request: Request<v1::AdoptStoreRequest>,
    ) -> Answer<v1::AdoptStoreResponse> {
        answer(self.adopt(request).await)
    }
}

impl Api {
    async fn adopt(
        &self,
        request: Request<v1::AdoptStoreRequest>,
    ) -> Result<v1::AdoptStoreResponse, Reject> {
        let (caller, v1::AdoptStoreRequest { mutation }) = open(request)?;
        let wish = Wish::AdoptStore { incarnation: draw::incarnation()? };
        let done = self.change(caller.actor, "StoreService/AdoptStore", mutation, wish).await?;
        Ok(v1::AdoptStoreResponse { result: Some(result(&done)) })
    }

    fn export(
        &self,
        request: Request<v1::ExportStoreRequest>,
    ) -> Result<Answers<v1::ExportStoreResponse>, Reject> {
        let (caller, v1::ExportStoreRequest { log }) = open(request)?;
        tracing::info!(target: "audit", who = %caller.actor, log, "exports the store");
        let (pieces, stream) = mpsc::channel(PIECES_MAX);
        let store = self.driver().store().clone();
        tokio::spawn(async move {
            let mut sink = Sink { pieces };
            match sink.export(store, log).await {
                Ok(()) | Err(Stopped::ReaderLeft) => {}
                Err(Stopped::Unreadable(why)) => {
                    tracing::error!(why, "cannot export the store");
                    let reject = Reject::new(Code::Internal, "store_unreadable", "store", why);
                    // Without its last line the copy is known to be torn.
                    let _ = sink.pieces.send(Err(from_reject(&reject))).await;
                }
            }
        });
        Ok(ReceiverStream::new(stream).boxed())
    }
}

enum Stopped {
    ReaderLeft,
    Unreadable(String),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<ChangesError> for Stopped {
    fn from(error: ChangesError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Where an export goes, piece by piece.
struct Sink {
    pieces: mpsc::Sender<Result<v1::ExportStoreResponse, Status>>,
}

impl Sink {
    async fn export(&mut self, store: Arc<dyn Store>, log: bool) -> Result<(), Stopped> {
        let snapshot = store.snapshot().await?;
        let compacted = if log { log_start(&*store).await? } else { snapshot.revision };
        let header = header(&snapshot, compacted);
        let mut writer = Writer::new(Vec::new(), &header)?;
        for (key, record) in &snapshot.records {
            writer.record(key, record)?;
            self.pass(writer.out(), PIECE_BYTES).await?;
        }
        let mut after = compacted;
        while log && after < snapshot.revision {
            let changes = store.changes(after).await?;
            // What was committed meanwhile is not in the records.
            let of_copy = changes.iter().filter(|change| change.revision <= snapshot.revision);
            for change in of_copy {
                writer.entry(change)?;
                self.pass(writer.out(), PIECE_BYTES).await?;
            }
            match changes.last() {
                Some(last) => after = last.revision,
                None => break,
            }
        }
        let mut rest = writer.finish(0)?;
        self.pass(&mut rest, 1).await
    }

    /// Passes on what there is, once it is at least `enough`.
    async fn pass(&mut self, bytes: &mut Vec<u8>, enough: usize) -> Result<(), Stopped> {
        if bytes.len() < enough {
            return Ok(());
        }
        for piece in std::mem::take(bytes).chunks(PIECE_BYTES) {
            let piece = v1::ExportStoreResponse { ndjson: piece.to_vec() };
            self.pieces.send(Ok(piece)).await.map_err(|_| Stopped::ReaderLeft)?;
        }
        Ok(())
    }
}

fn header(snapshot: &Snapshot, compacted: Revision) -> Header {
    let fleet = snapshot.records.get(&Key::Fleet).and_then(|record| match &record.value {
        Record::Fleet(fleet) => Some(fleet),
        _ => None,
    });
    Header::new(fleet, snapshot.revision, compacted, Some(clock::now()))
}

/// The revision after which the log is there.
async fn log_start(store: &dyn Store) -> Result<Revision, Stopped> {
    match store.changes(Revision::ZERO).await {
        Ok(_) => Ok(Revision::ZERO),
        Err(ChangesError::Compacted { oldest }) => Ok(oldest),
        Err(error) => Err(error.into()),
    }
}
