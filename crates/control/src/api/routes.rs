//! Requests to backend calls and back.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRef, FromRequest, Query, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Body;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use tokio::sync::Semaphore;

use super::{Backend, Declined, NewFile, Stop};
use crate::config::MAX_FILE;
use crate::report::{ErrorReport, Health, Page, ServerName, StopReport, VersionReport};

/// But for `/v1/diff` no request needs a body; this much is read to say so.
const BODY_LIMIT: usize = 4096;
/// Bytes of a configuration file, and one more, for [`Config::read`](crate::config::Config::read)
/// to say that it is too long.
const FILE_LIMIT: usize = MAX_FILE as usize + 1;
/// Files that are read and compared at once; others wait before a byte of theirs is read.
const FILES: usize = 1;

/// A refusal: its status, and what is wrong and would be right.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorReport { error: self.1 })).into_response()
    }
}

/// Parameters of `POST /v1/stop`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopParameters {
    #[serde(default)]
    keep: bool,
}

/// Parameters of `POST /v1/diff`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffParameters {
    file: String,
}

/// What requests share.
#[derive(Clone)]
struct Served {
    backend: Arc<dyn Backend>,
    files: Arc<Semaphore>,
}

impl FromRef<Served> for Arc<dyn Backend> {
    fn from_ref(served: &Served) -> Self {
        Self::clone(&served.backend)
    }
}

type Shared = State<Arc<dyn Backend>>;
type Parameters = Result<Query<BTreeMap<String, IgnoredAny>>, QueryRejection>;

pub(super) fn router(backend: Arc<dyn Backend>) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/stats", get(stats))
        .route("/v1/drops", get(drops))
        .route("/v1/sessions", get(sessions))
        .route("/v1/servers/down", post(server_down))
        .route("/v1/servers/up", post(server_up))
        .route("/v1/reload", post(reload))
        .route("/v1/diff", post(diff).layer(DefaultBodyLimit::max(FILE_LIMIT)))
        .route("/v1/stop", post(stop))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Served { backend, files: Arc::new(Semaphore::new(FILES)) })
}

async fn version(parameters: Parameters) -> Result<Response, Refusal> {
    no_parameters(parameters)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Json(VersionReport { version, pid: std::process::id() }).into_response())
}

async fn stats(State(backend): Shared, parameters: Parameters) -> Result<Response, Refusal> {
    no_parameters(parameters)?;
    answer(move || backend.stats()).await
}

async fn drops(State(backend): Shared, parameters: Parameters) -> Result<Response, Refusal> {
    no_parameters(parameters)?;
    answer(move || backend.drops()).await
}

async fn sessions(
    State(backend): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Refusal> {
    let expected = format!(
        "expected limit (1 to {}) and offset (0 or the `next` of the page before), both optional",
        Page::MAX_LIMIT
    );
    let bad = |what: String| Refusal(StatusCode::BAD_REQUEST, format!("{what}; {expected}"));
    let Query(page) = page.map_err(|rejection| bad(rejection.body_text()))?;
    if !(1..=Page::MAX_LIMIT).contains(&page.limit) {
        return Err(bad(format!("limit is {}", page.limit)));
    }
    answer(move || backend.sessions(page)).await
}

async fn reload(
    State(backend): Shared,
    uri: Uri,
    parameters: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    no_parameters(parameters)?;
    no_body(&uri, body)?;
    answer(move || backend.reload()).await
}

async fn diff(
    State(Served { backend, files }): State<Served>,
    parameters: Result<Query<DiffParameters>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Query(DiffParameters { file }) = parameters.map_err(|rejection| {
        let expected = "expected file=NAME, and the file's text as the body";
        Refusal(StatusCode::BAD_REQUEST, format!("{}; {expected}", rejection.body_text()))
    })?;
    // What says how long it is need not be read to be refused.
    if request.body().size_hint().lower() > FILE_LIMIT as u64 {
        let error = format!("the file is longer than the limit of {MAX_FILE} bytes");
        return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    let place = files.acquire_owned().await;
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    let file = NewFile { name: file, bytes: body.into() };
    answer(move || {
        let _place = place;
        backend.diff(file)
    })
    .await
}

type Named = Result<Query<ServerName>, QueryRejection>;

async fn server_down(
    State(backend): Shared,
    uri: Uri,
    name: Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    set_health(backend, &uri, name, body, Health::Down).await
}

async fn server_up(
    State(backend): Shared,
    uri: Uri,
    name: Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    set_health(backend, &uri, name, body, Health::Up).await
}

async fn set_health(
    backend: Arc<dyn Backend>,
    uri: &Uri,
    name: Named,
    body: Result<Bytes, BytesRejection>,
    health: Health,
) -> Result<Response, Refusal> {
    no_body(uri, body)?;
    let expected = "expected service=IP:PORT and server=IP:PORT as the configuration has them, and \
                    protocol=udp for a UDP service";
    let bad = |what: String| Refusal(StatusCode::BAD_REQUEST, format!("{what}; {expected}"));
    let Query(name) = name.map_err(|rejection| bad(rejection.body_text()))?;
    answer(move || backend.set_health(name, health)).await
}

async fn stop(
    State(backend): Shared,
    uri: Uri,
    parameters: Result<Query<StopParameters>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Query(StopParameters { keep }) = parameters.map_err(|rejection| {
        let expected = "expected keep (true or false), optional";
        Refusal(StatusCode::BAD_REQUEST, format!("{}; {expected}", rejection.body_text()))
    })?;
    no_body(&uri, body)?;
    answer(move || {
        backend.stop(if keep { Stop::Keep } else { Stop::End });
        Ok(StopReport { stopping: true })
    })
    .await
}

fn no_parameters(parameters: Parameters) -> Result<(), Refusal> {
    let bad = |what: String| {
        Refusal(StatusCode::BAD_REQUEST, format!("{what}; expected none for this path"))
    };
    let Query(parameters) = parameters.map_err(|rejection| bad(rejection.body_text()))?;
    match parameters.keys().next() {
        None => Ok(()),
        Some(name) => Err(bad(format!("unknown parameter {name:?}"))),
    }
}

fn no_body(uri: &Uri, body: Result<Bytes, BytesRejection>) -> Result<(), Refusal> {
    let body = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    if body.is_empty() {
        return Ok(());
    }
    let error = format!("{} takes no body; expected an empty request", uri.path());
    Err(Refusal(StatusCode::BAD_REQUEST, error))
}

/// Runs a backend call, which may take locks or copy a million sessions, off the event loop.
async fn answer<T: Serialize + Send + 'static>(
    call: impl FnOnce() -> Result<T, Declined> + Send + 'static,
) -> Result<Response, Refusal> {
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(report)) => Ok(Json(report).into_response()),
        Ok(Err(Declined::Refused(error))) => Err(Refusal(StatusCode::CONFLICT, error)),
        Ok(Err(Declined::NoAnswer)) => {
            let error = "the daemon is too busy to answer, or about to end; try again".to_owned();
            Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error))
        }
        Err(_) => {
            let error = "the daemon failed to answer; its log says why".to_owned();
            Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, error))
        }
    }
}

async fn unknown_path(uri: Uri) -> Refusal {
    let paths = "/v1/version, /v1/stats, /v1/drops, /v1/sessions, /v1/servers/down, \
                 /v1/servers/up, /v1/reload, /v1/diff, /v1/stop";
    let error = format!("nothing at {:?}; expected one of: {paths}", uri.path());
    Refusal(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let posts = ["/v1/servers/down", "/v1/servers/up", "/v1/reload", "/v1/diff", "/v1/stop"];
    let expected = if posts.contains(&uri.path()) { "POST" } else { "GET" };
    let error = format!("{} does not take {method}; expected {expected}", uri.path());
    Refusal(StatusCode::METHOD_NOT_ALLOWED, error)
}
