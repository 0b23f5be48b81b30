//! Copies of requests, made from what goes upstream and sent beside it.
//!
//! Owns when a copy is not made. Nothing of the exchange waits for one, or learns what became of it.

use std::rc::Rc;

use super::client::Client;
use super::downstream::Downstream;
use super::plan::Plan;
use super::shard::Shard;
use crate::http::Known;
use crate::http::h1::{Persistence, write_request};
use crate::metrics::CopyOutcome;
use crate::net;
use crate::plugin::{Copy, Cx};

/// Sends the copies that plugins asked for.
pub fn launch(
    shard: &Rc<Shard>,
    cx: &mut Cx<'_>,
    down: &mut Downstream,
    client: &Client<'_>,
    plan: &Plan<'_>,
) {
    for copy in std::mem::take(&mut cx.copies) {
        let metrics = &shard.metrics;
        // A tunnel cannot be copied, nor a body that is still to come.
        let Some(in_hand) = plan.in_hand.filter(|_| !copy.unfit && plan.upgrade.is_none()) else {
            metrics.count_copy(CopyOutcome::Unfit);
            continue;
        };
        let Some(place) = copy.place() else {
            metrics.count_copy(CopyOutcome::Dropped);
            continue;
        };
        let mut message = head(&copy, down);
        client.copy_in_hand(in_hand, &mut message);
        let method = plan.method;
        let shard = shard.clone();
        net::spawn(async move {
            let answered = copy.send(message, method, place).await;
            shard.metrics.count_copy(if answered { CopyOutcome::Sent } else { CopyOutcome::Failed });
        });
    }
}

/// The head of a copy.
fn head(copy: &Copy, down: &mut Downstream) -> Vec<u8> {
    let request = &mut down.request;
    let host = copy.host().map(|host| {
        let own = request.head.get_known(Known::Host).unwrap_or_default().to_vec();
        request.head.set_known(Known::Host, host);
        own
    });
    let path = (!copy.prefix().is_empty()).then(|| {
        let own = request.path().to_vec();
        request.set_path([copy.prefix(), &own].concat());
        own
    });
    let mut out = Vec::with_capacity(512);
    write_request(request, Persistence::Implied, &mut out);
    if let Some(own) = host {
        request.head.set_known(Known::Host, own);
    }
    if let Some(own) = path {
        request.set_path(own);
    }
    out
}
