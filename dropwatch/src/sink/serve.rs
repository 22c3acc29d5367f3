//! The exporter: `/metrics` for scrapers, `/healthz` for whoever restarts what stands still.
//!
//! Clients are strangers: there is a bound on how many there are, on how long each may take, and a
//! request's body is never read. Each connection is for one request.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    exit::Failure,
    render::metrics::{self, Exposition},
    report::totals::Totals,
    settings::Metrics,
    verbose,
};

/// Connections at a time; others wait for one to end.
const MOST_CLIENTS: usize = 32;
/// How long one may take to ask; then others have its place.
const TO_ASK: Duration = Duration::from_secs(2);
/// How long one may take in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many intervals without a report are a standstill.
const STANDSTILL: u32 = 3;
/// An interval of milliseconds is missed by any hiccup.
const LEAST_STANDSTILL: Duration = Duration::from_secs(3);
/// How long to wait where the kernel has no descriptor for the next connection.
const RETRY: Duration = Duration::from_millis(100);

/// Where metrics are served, and what they are.
#[derive(Clone)]
pub struct Exporter {
    listener: Arc<TcpListener>,
    state: Arc<Mutex<ExporterState>>,
}

struct ExporterState {
    totals: Totals,
    interval: Duration,
    /// When the last report came, or the run began.
    last: Instant,
}

impl Exporter {
    /// Takes the address, and serves nothing yet.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn bind(metrics: Metrics, interval: Duration) -> Result<Self, Failure> {
        let Metrics { address, namespaces } = metrics;
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot serve metrics at {address}"))?;
        listener.set_nonblocking(true).context("cannot serve metrics")?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let totals = Totals::new(version, interval.as_secs_f64(), namespaces);
        let state = ExporterState { totals, interval, last: Instant::now() };
        Ok(Self { listener: Arc::new(listener), state: Arc::new(Mutex::new(state)) })
    }

    /// What is served, to be changed.
    pub fn update(&self, change: impl FnOnce(&mut Totals)) {
        let mut state = self.state();
        change(&mut state.totals);
        state.last = Instant::now();
    }

    /// Serves, beside the caller, until the event loop ends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn serve(&self) -> Result<(), Failure> {
        let listener = self.listener.try_clone().context("cannot serve metrics")?;
        let listener =
            tokio::net::TcpListener::from_std(listener).context("cannot serve metrics")?;
        let address = listener.local_addr().context("cannot serve metrics")?;
        verbose::to_stderr(&format!("metrics at http://{address}/metrics"));
        tokio::spawn(accept(listener, self.clone()));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, ExporterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD, please\n");
            refused
                .headers_mut()
                .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/metrics" => {
                let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
                let exposition = Exposition::of_accept(accept);
                let state = self.state();
                let metrics = metrics::page(&state.totals, exposition);
                page(StatusCode::OK, exposition.content_type(), metrics)
            }
            "/healthz" => self.health(),
            "/" => page(StatusCode::OK, TEXT, "dropwatch: see /metrics and /healthz\n"),
            _ => page(StatusCode::NOT_FOUND, TEXT, "there are /metrics and /healthz\n"),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let state = self.state();
        let (age, bound) =
            (state.last.elapsed(), (state.interval * STANDSTILL).max(LEAST_STANDSTILL));
        match age > bound {
            true => {
                let text = format!("no report for {:.1}s\n", age.as_secs_f64());
                page(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
            }
            false => page(StatusCode::OK, TEXT, "ok\n"),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn page(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    page.headers_mut().insert(CONTENT_TYPE, content_type);
    page
}

async fn accept(listener: tokio::net::TcpListener, exporter: Exporter) {
    let clients = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        // The kernel queues those that come meanwhile.
        let Ok(client) = Arc::clone(&clients).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let exporter = exporter.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let answer = exporter.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(TO_ASK);
            // Whoever is too slow, or speaks something else, is nobody's business.
            let _served =
                timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), answer)).await;
            drop(client);
        });
    }
}
