//! The document of the interface, and the page to try it.

use doorbuster_domain::refusal::Refusal;
use serde_json::Value;

use crate::world::{Reply, in_world};

/// The table's codes that no handler answers, but the router or the gateway.
const OF_NO_ROUTE: [&str; 1] = ["method_not_allowed"];

fn committed() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_and_each_path_in_it_exists() {
    in_world(async |world| {
        let at = world.start().await;
        let backend = &world.backends[at];
        // It is put together from the routes that are served, and no route can be added past it (clippy.toml).
        let served = Reply::of(world.http.get(format!("{}/openapi.json", backend.ops)).send().await.unwrap()).await;
        assert_eq!((served.status.as_u16(), served.header("content-type")), (200, "application/json"));
        assert_eq!(served.body, committed());
        for (path, operations) in served.body["paths"].as_object().unwrap() {
            let listener = if path.starts_with("/v1/") { &backend.public } else { &backend.ops };
            let operations = operations.as_object().unwrap().keys();
            for method in operations.filter(|name| !["servers", "parameters"].contains(&name.as_str())) {
                let url = format!("{listener}{}", path.replace(['{', '}'], "x"));
                let method = method.to_uppercase().parse().unwrap();
                let reply = Reply::of(world.http.request(method, &url).send().await.unwrap()).await;
                let nowhere = ["not_found", "method_not_allowed"].contains(&reply.told());
                assert!(!nowhere, "{url}: {reply:?}");
            }
        }
    })
    .await;
}

#[test]
fn every_reference_leads_somewhere() {
    fn look(document: &Value, part: &Value) {
        match part {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value {
                Value::String(reference) if name == "$ref" => {
                    assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                }
                value => look(document, value),
            }),
            Value::Array(items) => items.iter().for_each(|item| look(document, item)),
            _ => {}
        }
    }
    look(&committed(), &committed());
}

#[test]
fn every_refusal_is_in_the_document() {
    let document = committed()["paths"].to_string();
    for refusal in Refusal::ALL.iter().filter(|refusal| !OF_NO_ROUTE.contains(&refusal.code())) {
        assert!(document.contains(&format!("\"{}\"", refusal.code())), "{}", refusal.code());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_nothing_from_elsewhere() {
    in_world(async |world| {
        let at = world.start().await;
        let page = async |path: &str| {
            let reply = world.http.get(format!("{}{path}", world.backends[at].ops)).send().await.unwrap();
            assert_eq!(reply.status(), 200, "{path}");
            reply.text().await.unwrap()
        };
        let html = page("/docs/").await;
        let sources: Vec<&str> =
            html.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
        assert!(!sources.is_empty(), "{html}");
        for source in sources {
            assert!(!source.contains("//"), "{source}");
            page(&format!("/docs/{}", source.trim_start_matches("./"))).await;
        }
        assert!(page("/docs/swagger-initializer.js").await.contains("/openapi.json"));
    })
    .await;
}
