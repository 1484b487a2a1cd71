//! Methods that an address does not take, OPTIONS and HEAD, on every address of the API.

use crate::support::{Answer, LocalServer};
use bulkhead::server::api_document;
use reqwest::{Client, Method};
use test_support::Database;

/// Every path of the API, an id in its place, and the methods that it takes.
fn addresses() -> Vec<(String, Vec<String>)> {
    let document = serde_json::to_value(api_document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .map(|(path, operations)| {
            let taken = operations.as_object().unwrap().keys().filter(|name| *name != "parameters");
            let mut methods: Vec<String> = taken.map(|name| name.to_uppercase()).collect();
            if methods.iter().any(|method| method == "GET") {
                methods.push("HEAD".to_owned());
            }
            methods.sort();
            (path.replace("{id}", "0193b7a6-7c1e-7d4c-9f1b-2f6f7f3e9a10"), methods)
        })
        .collect()
}

fn allowed(answer: &Answer) -> Vec<String> {
    let mut methods: Vec<String> = answer.header("allow").split(',').map(|name| name.trim().to_owned()).collect();
    methods.sort();
    methods
}

#[tokio::test]
async fn every_address_says_which_methods_it_takes() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[]).await;
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Answer::read(Client::new().request(method, format!("{}{path}", server.base)).send().await.unwrap()).await
    };
    let addresses = addresses();
    assert!(addresses.len() > 10, "{addresses:?}");
    for (path, methods) in addresses {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND"] {
            let answer = ask(method, &path).await;
            if method == "OPTIONS" {
                assert_eq!((answer.status, allowed(&answer)), (204, methods.clone()), "{method} {path}");
            } else if methods.iter().any(|taken| taken == method) {
                assert_ne!(answer.status, 405, "{method} {path}");
            } else {
                // An answer to HEAD has no body.
                let code = if method == "HEAD" { "-" } else { "RES_004" };
                answer.assert_error(405, code);
                assert_eq!(allowed(&answer), methods, "{method} {path}");
            }
        }
    }
    for path in ["/api/v1/nope", "/api/v1/documents/0193b7a6-7c1e-7d4c-9f1b-2f6f7f3e9a10/purge", "/nope"] {
        ask("OPTIONS", path).await.assert_error(404, "RES_001");
        ask("POST", path).await.assert_error(404, "RES_001");
    }
}
