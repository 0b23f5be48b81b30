//! The ledger's part of the admin interface, on the socket only.
//!
//! | request | answer |
//! |---|---|
//! | `GET /bans` | every ban in force |
//! | `POST /bans` with `{source, seconds, reason}` | 201 and the ban; 400, 409 (trusted), 507 |
//! | `DELETE /bans?source=` | 204; 404 (not banned), 409 (part of a banned prefix) |
//! | `GET /why?address=` | what is known of a source |
//! | `GET /top` | counters of everything at one moment |
//! | `GET /drops?from=&max=` | samples of dropped packets |
//!
//! Owns: the shape of requests. Never: an answer of its own; see [`super::ledger`].

use std::net::IpAddr;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::admin::{self, Ask, Events};
use super::ledger::{self, BanOrder, Refusal};

/// Paths of this part.
pub const PATHS: [&str; 4] = ["/bans", "/why", "/top", "/drops"];

/// Adds this part to `routes`.
pub fn routes(routes: Router<Events>) -> Router<Events> {
    routes
        .route("/bans", get(bans).post(ban).delete(unban))
        .route("/why", get(why))
        .route("/top", get(top))
        .route("/drops", get(drops))
}

async fn put<T>(
    events: &Events,
    ask: impl FnOnce(oneshot::Sender<T>) -> ledger::Ask,
) -> Result<T, StatusCode> {
    admin::put(events, |reply| Ask::Ledger(ask(reply))).await
}

async fn bans(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    Ok(Json(put(&events, ledger::Ask::Bans).await?))
}

/// A ban as it is ordered over the socket.
#[derive(Deserialize, Serialize)]
pub struct BanRequest {
    pub source: String,
    pub seconds: u64,
    #[serde(default)]
    pub reason: String,
}

async fn ban(
    State(events): State<Events>,
    order: Result<Json<BanRequest>, JsonRejection>,
) -> Result<Response, StatusCode> {
    let Ok(Json(order)) = order else {
        let message =
            "the body is not {\"source\": \"ADDRESS or CIDR\", \"seconds\": N, \"reason\": \"...\"}";
        return Ok(refused(&Refusal { status: 400, message: message.into() }));
    };
    let Some(source) = prefix(&order.source) else {
        let message = format!("{:?} is neither an address nor a CIDR", order.source);
        return Ok(refused(&Refusal { status: 400, message }));
    };
    let order = BanOrder { source, seconds: order.seconds, reason: order.reason };
    Ok(match put(&events, |reply| ledger::Ask::Ban(order, reply)).await? {
        Ok(ban) => (StatusCode::CREATED, Json(ban)).into_response(),
        Err(refusal) => refused(&refusal),
    })
}

#[derive(Deserialize)]
struct Source {
    source: String,
}

async fn unban(
    State(events): State<Events>,
    query: Result<Query<Source>, QueryRejection>,
) -> Result<Response, StatusCode> {
    let Some(source) = query.ok().and_then(|query| prefix(&query.source)) else {
        return Ok(refused(&Refusal { status: 400, message: "source= takes an address or a CIDR".into() }));
    };
    Ok(match put(&events, |reply| ledger::Ask::Unban(source, reply)).await? {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(&refusal),
    })
}

#[derive(Deserialize)]
struct Address {
    address: IpAddr,
}

async fn why(
    State(events): State<Events>,
    query: Result<Query<Address>, QueryRejection>,
) -> Result<Response, StatusCode> {
    let Ok(Query(Address { address })) = query else {
        return Ok(refused(&Refusal { status: 400, message: "address= takes an IP address".into() }));
    };
    Ok(Json(put(&events, |reply| ledger::Ask::Why(address, reply)).await?).into_response())
}

async fn top(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    Ok(Json(put(&events, ledger::Ask::Top).await?))
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    from: u64,
    #[serde(default = "max_by_default")]
    max: usize,
}

fn max_by_default() -> usize {
    1000
}

async fn drops(
    State(events): State<Events>,
    Query(Range { from, max }): Query<Range>,
) -> Result<impl IntoResponse, StatusCode> {
    Ok(Json(put(&events, |reply| ledger::Ask::Drops(from, max, reply)).await?))
}

/// An address stands for the prefix that holds nothing else.
pub fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, Json(json!({ "message": refusal.message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix() {
        assert_eq!(prefix("192.0.2.1"), "192.0.2.1/32".parse().ok());
        assert_eq!(prefix(" 10.0.0.0/8 "), "10.0.0.0/8".parse().ok());
        assert_eq!(prefix("2001:db8::1"), "2001:db8::1/128".parse().ok());
        assert_eq!(prefix("example.com"), None);
    }
}
