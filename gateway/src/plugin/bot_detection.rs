//! `bot-detection`: programs that say who they are and are not wanted (Kong's plugin of the same name).
//!
//! Owns the lists of expressions and the refusal. It believes `User-Agent`, so it keeps out only who is honest.
//!
//! **Invariant.** A request without a `User-Agent` passes; one with two is refused, as nobody knows which is meant.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::schema::text::REGEX_SIZE;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{Known, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "bot-detection", priority: 2500, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "bot-detection",
    "Refuses bots by their `User-Agent`: those of `deny`, and crawlers and monitors that are widely known.",
    &[
        Key::new(
            "allow",
            Kind::STRINGS,
            "Regular expressions for a part of `User-Agent`; who matches one passes, whatever else matches.",
        )
        .default("[]"),
        Key::new("deny", Kind::STRINGS, "Regular expressions for a part of `User-Agent` that is refused.")
            .default("[]"),
        Key::new(
            "points",
            Kind::integer(0, POINTS_MAX),
            "Points that a refused bot loses beside the request: `xdp.costs.plugin` says what one costs its address in the \
             kernel, `xdp.bans.triggers.plugin` how many ban it.",
        )
        .default("0"),
    ],
);

/// More than any bucket holds.
const POINTS_MAX: i64 = 1_000_000;

/// Crawlers, previewers, monitors and libraries by the names that they give themselves in public: the families of Kong's
/// list, which is that of ua-parser, and those of today.
const KNOWN_BOTS: &[&str] = &[
    // Whatever calls itself one; but a Cubot is a telephone.
    r"(?i)spider|crawl|scrape|archiver\b|indexer\b",
    r"(?i)(?:^|[^u])bot|(?:^|[^c])ubot",
    r"(?i)\b(?:Google-HTTP-Java-Client|Apache-HttpClient|http%20client|Python-urllib|HttpMonitor|TLSProber|WinHTTP|JNLP)",
    r"(?i)\b(?:facebookexternalhit|facebookcatalog|meta-externalagent|Pingdom|UptimeRobot|StatusCake|Site24x7|NewRelicPinger)",
    r"(?i)\b(?:AdsBot-Google|Mediapartners-Google|AppEngine-Google|BingPreview|GoogleOther|Google.*/\+/web/snippet)",
    r"(?i)\b(?:Screaming Frog|SEOkicks|SEOstats|GomezAgent|YottaaMonitor|PagePeeker|URL2PNG|Netvibes|NewsGator|SimplePie)",
    r"(?i)\b(?:Scrapy|heritrix|nutch|HTTrack|WebZIP|Xenu|WhatWeb|Web-sniffer|masscan|zgrab|Nikto|sqlmap|larbin|htdig)",
    r"(?i)\b(?:Slurp|ia_archiver|InternetArchive|altavista|lycos|Ask Jeeves|Daumoa|Yeti|ichiro|Vagabondo|yacy|Yandex\w+)",
    r"(?i)\b(?:WordPress/|BoardReader|BlogBridge|Genieo|findlinks|Kraken/|holmes/|grub-client|Wotbox|MSIECrawler)",
];

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let bots = fields.strings("deny").into_iter().chain(KNOWN_BOTS.iter().map(|text| (*text).to_owned()));
    let allow = expressions(&fields, "allow", fields.strings("allow"));
    let deny = expressions(&fields, "deny", bots.collect());
    Some(Arc::new(BotDetection { allow: allow?, deny: deny?, points: fields.integer("points") }))
}

fn expressions(fields: &Fields<'_>, key: &str, all: Vec<String>) -> Option<RegexSet> {
    let compiled = RegexSetBuilder::new(all).size_limit(4 * REGEX_SIZE).build();
    compiled.map_err(|error| fields.error(key, Fault::new(error.to_string()))).ok()
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct BotDetection {
    allow: RegexSet,
    deny: RegexSet,
    points: u32,
}

impl PluginSpec for BotDetection {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<BotDetection>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let mut agents = request.head.all_known(Known::UserAgent);
        let Some(agent) = agents.next() else { return Flow::Continue };
        if agents.next().is_some() {
            let message = "Only one User-Agent header allowed";
            return Flow::Respond(Response::new(400, Reason::BadHeader, message));
        }
        if self.0.allow.is_match(agent) || !self.0.deny.is_match(agent) {
            return Flow::Continue;
        }
        cx.points = self.0.points;
        Flow::Respond(Response::new(403, Reason::BotDetected, "Forbidden"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with as request};

    fn send(config: &str, lines: &[&str]) -> Option<(u16, String)> {
        let bed = Fixture::default();
        let plugin = bed.accepted("bot-detection", config);
        match plugin.on_request(&mut bed.cx_from("192.0.2.7"), &mut request("/", lines)) {
            Flow::Continue => None,
            Flow::Respond(answer) => Some((answer.status, answer.message.into_owned())),
            Flow::Wait(_) => panic!("waits"),
        }
    }

    #[test]
    fn agents() {
        let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        let crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        let table = [
            ("{}", browser, true),
            ("{}", crawler, false),
            ("{}", "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", false),
            ("{}", "curl/8.5.0", true),
            ("{}", "Mozilla/5.0 (Linux; Android 10; CUBOT X30) AppleWebKit/537.36", true),
            ("{}", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36", true),
            ("{}", "okhttp/4.12.0", true),
            ("{}", "facebookexternalhit/1.1", false),
            ("{}", "Twitterbot/1.0", false),
            ("{}", "Python-urllib/3.12", false),
            ("{}", "Apache-HttpClient/4.5.14 (Java/17)", false),
            ("{}", "Mozilla/5.0 (compatible; Baiduspider/2.0)", false),
            ("{}", "SomeCrawler 1.0", false),
            ("{}", "bot", false),
            ("{deny: ['^curl/']}", "curl/8.5.0", false),
            ("{deny: ['^curl/']}", "libcurl/8.5.0", true),
            ("{deny: ['^curl/']}", crawler, false),
            ("{allow: [Googlebot]}", crawler, true),
            ("{allow: ['curl/8'], deny: [curl]}", "curl/8.5.0", true),
            ("{allow: ['curl/8'], deny: [curl]}", "curl/7.1", false),
        ];
        for (config, agent, passes) in table {
            let sent = send(config, &[&format!("User-Agent: {agent}")]);
            assert_eq!(sent, (!passes).then(|| (403, "Forbidden".to_owned())), "{config} {agent}");
        }
        assert_eq!(send("{deny: ['.*']}", &[]), None, "who says nothing passes");
    }

    #[test]
    fn a_bot_may_lose_points_and_nobody_else_does() {
        let bed = Fixture::default();
        let plugin = bed.accepted("bot-detection", "{points: 7}");
        for (agent, points) in [("sqlmap/1.9", 7), ("curl/8.5.0", 0)] {
            let mut cx = bed.cx_from("192.0.2.7");
            plugin.on_request(&mut cx, &mut request("/", &[&format!("User-Agent: {agent}")]));
            assert_eq!(cx.points, points, "{agent}");
        }
    }

    #[test]
    fn two_agents_are_none() {
        let said = send("{}", &["User-Agent: a", "User-Agent: b"]);
        assert_eq!(said, Some((400, "Only one User-Agent header allowed".to_owned())));
    }

    #[test]
    fn a_bad_expression_is_reported() {
        let said = Fixture::default().refused("bot-detection", "{allow: ['(']}");
        assert!(said.contains("error: allow"), "{said}");
    }
}
