//! Pages in place of errors: the upstream's, before its response goes on, and the gateway's own.
//!
//! Owns where plugins are asked for them. An answer that has a content of its own is left alone, and so is a call of
//! gRPC, which reads none.

use super::carry::Stage;
use super::finish::Record;
use crate::http::RequestHead;
use crate::plugin::chain::Chain;
use crate::plugin::{Cx, Page, PageFuture, Response};
use crate::snapshot::Local;

/// Least status that is an error.
const ERROR: u16 = 400;

fn find(local: &Local, chain: &Chain, cx: &Cx<'_>, request: &RequestHead, status: u16) -> Option<PageFuture> {
    let mut plugins = (0..chain.len()).filter_map(|step| chain.at(step, cx.identity.consumer));
    plugins.find_map(|index| local.plugins[index.0 as usize].error_page(cx, request, status))
}

/// The page in place of the upstream's response with this status.
pub fn in_place_of(
    stage: Stage<'_>,
    cx: &Cx<'_>,
    request: &RequestHead,
    record: &Record,
    status: u16,
) -> Option<PageFuture> {
    if status < ERROR || record.call.is_some() {
        return None;
    }
    find(stage.local, stage.plan.chain, cx, request, status)
}

/// Gives an answer of ours its page, if there is one.
pub async fn put(local: &Local, cx: &Cx<'_>, request: &RequestHead, record: &Record, answer: &mut Response) {
    let Some(route) = record.route.filter(|_| answer.status >= ERROR && record.call.is_none()) else {
        return;
    };
    if answer.content.is_some() {
        return;
    }
    let chain = &local.snapshot.routes[route.index()].chain;
    let Some(page) = find(local, chain, cx, request, answer.status) else { return };
    if let Some(Page { status, content }) = page.await {
        answer.status = status;
        answer.content = Some(content);
    }
}
