//! The methods by path, and the health checks over HTTP.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::error::EtcdError;
use super::{EtcdServer, VERSION};
use crate::Store;
use crate::grpc::server::{RequestStream, ResponseBody, refusal, streaming, unary};
use crate::grpc::{Code, Status};

/// Space that a message needs beyond the limit of a request (etcd: `grpcOverheadBytes`).
const OVERHEAD: usize = 512 << 10;
/// Number of messages of a stream that wait to be sent.
const UNSENT: usize = 2;

impl EtcdServer {
    /// Answers a request.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return self.answer_probe(&head.method, head.uri.path()).await;
        }
        let inner = self.0;
        let requests = RequestStream::new(body, inner.options.max_request_bytes + OVERHEAD);
        match head.uri.path() {
            "/etcdserverpb.KV/Range" => unary(requests, |request| inner.range(request)).await,
            "/etcdserverpb.KV/Put" => unary(requests, |request| inner.put(request)).await,
            "/etcdserverpb.KV/DeleteRange" => unary(requests, |request| inner.delete_range(request)).await,
            "/etcdserverpb.KV/Txn" => unary(requests, |request| inner.txn(request)).await,
            "/etcdserverpb.KV/Compact" => unary(requests, |request| inner.compact(request)).await,
            "/etcdserverpb.Lease/LeaseGrant" => unary(requests, |request| inner.grant_lease(request)).await,
            "/etcdserverpb.Lease/LeaseRevoke" => unary(requests, |request| inner.revoke_lease(request)).await,
            "/etcdserverpb.Lease/LeaseTimeToLive" => {
                unary(requests, |request| inner.lease_time_to_live(request)).await
            }
            "/etcdserverpb.Lease/LeaseLeases" => unary(requests, |request| inner.list_leases(request)).await,
            "/etcdserverpb.Maintenance/Status" => unary(requests, |request| inner.status(request)).await,
            "/etcdserverpb.Maintenance/Alarm" => unary(requests, |request| inner.alarm(request)).await,
            "/etcdserverpb.Maintenance/Hash" => unary(requests, |request| inner.hash(request)).await,
            "/etcdserverpb.Maintenance/HashKV" => unary(requests, |request| inner.hash_kv(request)).await,
            "/etcdserverpb.Maintenance/Defragment" => {
                unary(requests, |request| inner.defragment(request)).await
            }
            "/etcdserverpb.Cluster/MemberList" => {
                unary(requests, |request| inner.list_members(request)).await
            }
            "/etcdserverpb.Watch/Watch" => {
                let (messages, response) = streaming(UNSENT);
                tokio::spawn(async move { inner.watch(requests, messages).await });
                response
            }
            "/etcdserverpb.Lease/LeaseKeepAlive" => {
                let (messages, response) = streaming(UNSENT);
                tokio::spawn(async move { inner.keep_leases_alive(requests, messages).await });
                response
            }
            "/etcdserverpb.Maintenance/Snapshot" => {
                let (messages, response) = streaming(UNSENT);
                tokio::spawn(async move { inner.snapshot(messages).await });
                response
            }
            path if path.starts_with("/etcdserverpb.Auth/") => refusal(&EtcdError::AuthNotEnabled.into()),
            path => {
                let message = format!("unknown method {path}");
                refusal(&Status { code: Code::Unimplemented, message })
            }
        }
    }

    /// Answers etcd's health checks.
    async fn answer_probe(&self, method: &Method, path: &str) -> Response<ResponseBody> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and gRPC\n".to_owned());
        }
        let is_healthy = self.0.store.status().await.is_ok_and(|status| !status.no_space);
        let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match path {
            "/health" => plain(status, format!("{{\"health\":\"{is_healthy}\",\"reason\":\"\"}}")),
            "/readyz" => plain(status, if is_healthy { "ok\n" } else { "the disk is full\n" }.to_owned()),
            "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
            "/version" => {
                let body = format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{VERSION}\"}}");
                plain(StatusCode::OK, body)
            }
            _ => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }
}

fn plain(status: StatusCode, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Plain(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
