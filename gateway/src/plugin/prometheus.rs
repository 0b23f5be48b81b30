//! `prometheus`: Kong's switch for metrics.
//!
//! Owns its keys alone. Metrics are always collected here and served by the admin interface (`GET /metrics`), with
//! bounded labels; the plugin is accepted so that a file that asks for them loads, and does nothing to a request.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};

use super::{CompileCx, Plugin, PluginSpec, Registration};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "prometheus", priority: 13, section: &SECTION, compile };

const ON: &str = "Collected always.";

static SECTION: Section = Section::new(
    "prometheus",
    "Kong's switch for metrics. They are always collected, and served by the admin interface under `/metrics`.",
    &[
        Key::new("per_consumer", Kind::Bool, "Metrics by consumer; there are none.").default("false"),
        Key::new("status_code_metrics", Kind::Bool, ON).default("true").kong_default("false"),
        Key::new("latency_metrics", Kind::Bool, ON).default("true").kong_default("false"),
        Key::new("bandwidth_metrics", Kind::Bool, ON).default("true").kong_default("false"),
        Key::new("upstream_health_metrics", Kind::Bool, ON).default("true").kong_default("false"),
        Key::new("ai_metrics", Kind::Bool, "Metrics of language models; there are none.").default("false"),
        Key::new("wasm_metrics", Kind::Bool, "Metrics of WebAssembly filters; there are none.")
            .default("false"),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    for key in ["per_consumer", "ai_metrics", "wasm_metrics"] {
        if fields.bool(key) {
            fields.warning(key, "there are no such metrics");
        }
    }
    if !plugin.scope.is_global() {
        let origin = fields.origin();
        found.note(
            origin.span,
            &origin.path,
            "metrics are collected for every route, not only for this scope",
        );
    }
    Some(Arc::new(Prometheus))
}

struct Prometheus;

impl PluginSpec for Prometheus {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(Prometheus)
    }
}

impl Plugin for Prometheus {}

#[cfg(test)]
mod tests {
    use crate::plugin::fixture::Fixture;

    #[test]
    fn kongs_keys_are_taken_and_what_is_not_there_is_named() {
        let fixture = Fixture::default();
        let said = |settings| fixture.compile("prometheus", 1, settings).expect("accepted").1;
        assert_eq!(said("{status_code_metrics: true, latency_metrics: true, bandwidth_metrics: false}"), "");
        assert_eq!(said("{per_consumer: true}"), "warning: per_consumer: there are no such metrics");
    }
}
