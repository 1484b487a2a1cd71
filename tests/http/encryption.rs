//! TLS to PostgreSQL: the server proves who it is, or gets no data.

use crate::{must, run, stderr, stdout};
use tempfile::TempDir;
use test_support::{Certificates, Cluster};
use url::Url;

type Text<'a> = Option<&'a str>;

/// The path of a new file.
fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_database_proves_who_it_is_to_an_authority_in_a_file_or_a_variable() {
    let Some(cluster) = Cluster::new().await else { return };
    let (known, other) = (Certificates::new("127.0.0.1"), Certificates::new("127.0.0.1"));
    cluster.offer_tls(&known).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name, text| file(&folder, name, text);
    let (known_file, other_file) = (file("known.pem", &known.authority), file("other.pem", &other.authority));
    let missing = folder.path().join("missing.pem").to_str().unwrap().to_owned();
    let several = format!("\n{}{}\n", other.authority, known.authority);
    let remark = format!("An authority:\n{}", known.authority);
    let unknown = Some("invalid peer certificate: ");
    let other_name = Some("certificate not valid for name \"localhost\"");
    let no_file = Some("no file has the name in sslrootcert");
    // The host, `sslmode`, the variable, the URL's parameter, and what is wrong.
    let cases: [(&str, &str, Text<'_>, Text<'_>, Text<'_>); 14] = [
        ("127.0.0.1", "verify-full", Some(&known.authority), None, None),
        ("127.0.0.1", "verify-full", Some(&several), None, None),
        ("127.0.0.1", "verify-full", Some(&known_file), None, None),
        ("127.0.0.1", "verify-full", None, Some(&known_file), None),
        ("127.0.0.1", "verify-full", Some(&other.authority), Some(&known_file), None),
        ("127.0.0.1", "verify-full", None, None, unknown),
        ("127.0.0.1", "verify-full", Some(&other.authority), None, unknown),
        ("127.0.0.1", "verify-full", None, Some(&other_file), unknown),
        ("127.0.0.1", "verify-ca", Some(&other.authority), None, unknown),
        ("localhost", "verify-full", Some(&known.authority), None, other_name),
        ("localhost", "verify-ca", Some(&known.authority), None, None),
        ("127.0.0.1", "require", Some(&other.authority), None, None),
        ("127.0.0.1", "verify-full", Some(&missing), None, no_file),
        // It is taken for a file's name.
        ("127.0.0.1", "verify-full", Some(&remark), None, no_file),
    ];
    for (host, mode, variable, parameter, wrong) in cases {
        let mut url = Url::parse(&cluster.url).unwrap();
        url.set_host(Some(host)).unwrap();
        url.query_pairs_mut().clear().append_pair("sslmode", mode);
        if let Some(file) = parameter {
            url.query_pairs_mut().append_pair("sslrootcert", file);
        }
        let settings: Vec<(&str, &str)> =
            [("DATABASE_URL", Some(url.as_str())), ("ENVIRONMENT", Some("production")), ("PGSSLROOTCERT", variable)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
        let output = run(&["migrate", "status"], &settings).await;
        let text = stderr(&output);
        let what = format!("{host}, {mode}, {variable:?}, {parameter:?}: {text}");
        match wrong {
            None => assert!(output.status.success(), "{what}"),
            Some(wrong) => {
                assert_eq!(output.status.code(), Some(1), "{what}");
                assert!(text.starts_with("DATABASE_URL: cannot use ") && text.contains(wrong), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn database_ca_wins_and_a_client_shows_its_certificate() {
    let Some(cluster) = Cluster::new().await else { return };
    let (known, other) = (Certificates::new("127.0.0.1"), Certificates::new("127.0.0.1"));
    cluster.offer_tls(&known).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name, text| file(&folder, name, text);
    let (known_file, other_file) = (file("known.pem", &known.authority), file("other.pem", &other.authority));
    let (client, key) = (file("client.pem", &known.client), file("client.key", &known.client_key));
    let status = async |parameters: &[(&str, &str)], settings: &[(&str, &str)]| {
        let mut url = Url::parse(&cluster.url).unwrap();
        url.query_pairs_mut().clear().append_pair("sslmode", "verify-full").extend_pairs(parameters);
        let settings = [&[("DATABASE_URL", url.as_str()), ("ENVIRONMENT", "production")], settings].concat();
        let output = run(&["migrate", "status"], &settings).await;
        (output.status.code(), stderr(&output))
    };
    // Over the parameter of the URL, and over libpq's variable.
    for (parameters, more) in
        [(&[("sslrootcert", &*other_file)][..], &[][..]), (&[], &[("PGSSLROOTCERT", &*other.authority)])]
    {
        for own in [("DATABASE_CA_FILE", &*known_file), ("DATABASE_CA", &*known.authority)] {
            let (code, text) = status(parameters, &[&[own], more].concat()).await;
            assert_eq!(code, Some(0), "{own:?}: {text}");
        }
        let (code, text) = status(parameters, &[&[("DATABASE_CA_FILE", &*other_file)], more].concat()).await;
        assert!(code == Some(1) && text.contains("invalid peer certificate: "), "{text}");
    }
    cluster.demand_client_certificates().await;
    let authority = ("DATABASE_CA_FILE", &*known_file);
    let (code, text) = status(&[], &[authority]).await;
    assert!(code == Some(1) && text.contains("connection requires a valid client certificate"), "{text}");
    let (code, text) = status(&[("sslcert", &client), ("sslkey", &key)], &[authority]).await;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = status(&[], &[authority, ("PGSSLCERT", &client), ("PGSSLKEY", &key)]).await;
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn a_server_may_demand_a_certificate_and_a_password() {
    const PASSWORD: &str = "hunter2 & more";
    let Some(cluster) = Cluster::new().await else { return };
    let known = Certificates::new("127.0.0.1");
    cluster.offer_tls(&known).await;
    cluster.demand_client_certificates_and_passwords(PASSWORD).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name, text| file(&folder, name, text);
    let (client, key) = (file("client.pem", &known.client), file("client.key", &known.client_key));
    let shown = [("sslcert", &*client), ("sslkey", &*key)];
    let no_certificate = Some("connection requires a valid client certificate");
    let no_password = Some("password authentication failed for user");
    for (password, parameters, variables, wrong) in [
        (Some(PASSWORD), &shown[..], &[][..], None),
        (Some(PASSWORD), &[], &[("PGSSLCERT", &*client), ("PGSSLKEY", &*key)][..], None),
        (None, &shown, &[("PGPASSWORD", PASSWORD)], None),
        (Some(PASSWORD), &[], &[], no_certificate),
        (Some("hunter3"), &shown, &[], no_password),
        (None, &shown, &[], no_password),
    ] {
        let mut url = Url::parse(&cluster.url).unwrap();
        url.set_password(password).unwrap();
        url.query_pairs_mut().clear().append_pair("sslmode", "verify-full").extend_pairs(parameters);
        let settings =
            [("DATABASE_URL", url.as_str()), ("ENVIRONMENT", "production"), ("DATABASE_CA", &known.authority)];
        let output = run(&["migrate", "status"], &[&settings[..], variables].concat()).await;
        let text = stderr(&output);
        let what = format!("{password:?}, {parameters:?}, {variables:?}: {text}");
        assert_eq!(output.status.code(), Some(i32::from(wrong.is_some())), "{what}");
        assert!(wrong.is_none_or(|wrong| text.contains(wrong)) && !text.contains("hunter"), "{what}");
    }
}

#[tokio::test]
async fn the_connection_of_migrations_is_held_to_the_same_authorities_or_to_its_own() {
    let Some(cluster) = Cluster::new().await else { return };
    let (known, other) = (Certificates::new("127.0.0.1"), Certificates::new("127.0.0.1"));
    cluster.offer_tls(&known).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name, text| file(&folder, name, text);
    let (known_file, other_file) = (file("known.pem", &known.authority), file("other.pem", &other.authority));
    let url = |authority: Text<'_>| {
        let mut url = Url::parse(&cluster.url).unwrap();
        url.query_pairs_mut().clear().append_pair("sslmode", "verify-full");
        if let Some(file) = authority {
            url.query_pairs_mut().append_pair("sslrootcert", file);
        }
        String::from(url)
    };
    // The authority in each URL, the one of the setting, and whether each connection can be had.
    for (serves, migrates, setting, served, migrated) in [
        (None, None, Some(&known_file), true, true),
        (None, Some(&*other_file), Some(&known_file), true, true),
        (Some(&*known_file), Some(&*known_file), None, true, true),
        (Some(&*other_file), Some(&*known_file), None, false, true),
        (Some(&*known_file), Some(&*other_file), None, true, false),
        (Some(&*known_file), None, None, true, false),
        (Some(&*known_file), Some(&*known_file), Some(&other_file), false, false),
    ] {
        let (serves, migrates) = (url(serves), url(migrates));
        let mut settings = vec![
            ("DATABASE_URL", serves.as_str()),
            ("MIGRATION_DATABASE_URL", &migrates),
            ("ENVIRONMENT", "production"),
        ];
        settings.extend(setting.map(|file| ("DATABASE_CA_FILE", file.as_str())));
        let what = format!("{settings:?}");
        if migrated {
            must(&["migrate", "up"], &settings).await;
        } else {
            let output = run(&["migrate", "up"], &settings).await;
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{what}: {text}");
            let said = text.starts_with("MIGRATION_DATABASE_URL: cannot use ");
            assert!(said && text.contains("invalid peer certificate: "), "{what}: {text}");
        }
        let text = stdout(&run(&["doctor"], &settings).await);
        assert_eq!(text.contains("good   database: "), served, "{what}: {text}");
        assert_eq!(text.contains("good   encryption: "), served, "{what}: {text}");
        assert_eq!(text.contains("good   audit log: "), served && migrated, "{what}: {text}");
    }
}
