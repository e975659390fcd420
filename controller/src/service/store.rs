//! StoreService: a copy of everything, and accepting an old one.

use lockstep_model::Reject;
use lockstep_model::request::Request as Wish;
use lockstep_proto::v1;
use lockstep_proto::v1::store_service_server::StoreService;
use tonic::Request;

use super::{Answer, Answers, Api, answer, open, result};
use crate::identity::draw;

#[tonic::async_trait]
impl StoreService for Api {
    type ExportStoreStream = Answers<v1::ExportStoreResponse>;

    async fn export_store(
        &self,
        request: Request<v1::ExportStoreRequest>,
    ) -> Answer<Self::ExportStoreStream> {
        answer(self.export(request).await)
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
}

impl Api {
    async fn export(
        &self,
        request: Request<v1::ExportStoreRequest>,
    ) -> Result<Answers<v1::ExportStoreResponse>, Reject> {
        let (_, v1::ExportStoreRequest { log: _ }) = open(request)?;
        Err(Reject::new(lockstep_model::Code::Unimplemented, "todo", "store", "not yet"))
    }
}
