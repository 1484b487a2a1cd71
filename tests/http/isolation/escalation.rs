//! Whoever holds the run-time login, by a stolen URL or an injection, gets no right that the login has not got.

use super::logins::{CREATE, deployment, succeed};
use crate::support::{TestApp, value};
use bulkhead_migrator::code;
use sea_orm::{ConnectionTrait, DatabaseConnection};

const REFUSED: &str = "42501";

struct Attacker {
    app: TestApp,
    owner: String,
    connection: DatabaseConnection,
}

impl Attacker {
    /// At the database of an owner who is a superuser, or is not; may make temporary objects, or may not.
    async fn new(superuser: bool, temporary: bool) -> Option<Self> {
        let app = deployment().await?;
        let owner = app.owning_login(if superuser { "SUPERUSER" } else { "CREATEROLE" }).await;
        let login = app.login("").await;
        app.execute(&format!("GRANT ALL ON SCHEMA public TO {owner}")).await;
        let roles = app.roles(&login, &owner);
        succeed(&roles, &["migrate", "up"]).await;
        succeed(&roles, &CREATE[..6]).await;
        if temporary {
            app.on_this_database(&format!("GRANT TEMPORARY ON DATABASE %I TO {login}")).await;
        }
        let options = sea_orm::ConnectOptions::new(app.url(&login)).max_connections(1).to_owned();
        let connection = sea_orm::Database::connect(options).await.unwrap();
        connection.execute_unprepared("SET ROLE bulkhead_app").await.unwrap();
        Some(Self { app, owner, connection })
    }

    async fn tries(&self, sql: &str) -> Result<(), String> {
        let done = self.connection.execute_unprepared(sql).await;
        done.map(drop).map_err(|error| code(&error).unwrap_or_else(|| error.to_string()))
    }

    async fn text(&self, sql: &str) -> String {
        value(&self.connection, sql).await
    }

    /// Names the tenant, for this session.
    async fn names_the_tenant(&self) -> String {
        let tenant = self.text("SELECT tenant_id::text FROM find_caller('clinic-1', 'nobody')").await;
        self.tries(&format!("SET app.current_tenant_id = '{tenant}'")).await.unwrap();
        tenant
    }

    /// What a command of the owner prints, which succeeds.
    async fn operates(&self, arguments: &[&str]) -> String {
        succeed(&self.app.roles(&self.owner, &self.owner), arguments).await
    }

    async fn chains_hold(&self) {
        self.operates(&["audit", "verify"]).await;
    }
}

#[tokio::test]
async fn temporary_view_does_not_replace_a_table() {
    for superuser in [false, true] {
        let Some(attacker) = Attacker::new(superuser, true).await else { return };
        attacker.tries("RESET ROLE").await.unwrap();
        // As the owner it would leave its name behind, and then do what it likes.
        let trap = "
            CREATE TEMPORARY TABLE caught (who name);
            GRANT ALL ON caught TO PUBLIC;
            CREATE FUNCTION pg_temp.trap() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
            BEGIN
                INSERT INTO caught SELECT current_user;
                RETURN NULL;
            END $$;
            CREATE TEMPORARY VIEW tenants AS
                SELECT gen_random_uuid() AS id, 'clinic-1'::text AS external_id, 'active'::text AS status,
                    pg_temp.trap() AS deleted_at;
            CREATE TEMPORARY VIEW users AS
                SELECT gen_random_uuid() AS id, gen_random_uuid() AS tenant_id, ''::text AS external_idp_id,
                    ''::text AS role, pg_temp.trap() AS deleted_at;
            CREATE TEMPORARY TABLE audit_heads (tenant_id uuid, sequence bigint, hash text);
            GRANT ALL ON tenants, users, audit_heads TO PUBLIC;
            SET ROLE bulkhead_app;";
        attacker.tries(trap).await.unwrap();
        // It works, for whoever walks into it.
        attacker.tries("SELECT * FROM pg_temp.tenants").await.unwrap();
        assert_eq!(attacker.text("SELECT string_agg(who, ',') FROM caught").await, "bulkhead_app");
        let tenant = attacker.names_the_tenant().await;
        attacker.tries("SELECT * FROM find_caller('clinic-1', 'nobody')").await.unwrap();
        attacker
            .tries(&format!(
                "INSERT INTO pg_temp.audit_heads VALUES ('{tenant}', 999, repeat('f', 64));
                 INSERT INTO public.audit_logs (id, tenant_id, action, resource_type)
                     VALUES (gen_random_uuid(), '{tenant}', 'CREATED', 'users')"
            ))
            .await
            .unwrap();
        assert_eq!(attacker.text("SELECT string_agg(who, ',') FROM caught").await, "bulkhead_app");
        assert_eq!(attacker.text("SELECT max(sequence)::text FROM public.audit_logs").await, "2");
        attacker.chains_hold().await;
    }
}

#[tokio::test]
async fn no_function_can_be_borrowed_as_a_trigger_or_called() {
    let Some(attacker) = Attacker::new(false, true).await else { return };
    attacker.tries("RESET ROLE; CREATE TEMPORARY TABLE mine (LIKE public.audit_logs)").await.unwrap();
    for (function, arguments) in [
        ("continue_audit_chain", ""),
        ("begin_audit_chain", ""),
        ("refuse_change", ""),
        ("set_updated_at", ""),
        ("canonical_json", "'{}'"),
    ] {
        let borrow =
            format!("CREATE TRIGGER borrowed BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION {function}()");
        if arguments.is_empty() {
            assert_eq!(attacker.tries(&borrow).await, Err(REFUSED.to_owned()), "{function}");
        }
        let call = format!("SELECT public.{function}({arguments})");
        assert_eq!(attacker.tries(&call).await, Err(REFUSED.to_owned()), "{function}");
    }
    attacker.chains_hold().await;
}

#[tokio::test]
async fn only_the_owner_makes_temporary_tables() {
    let Some(attacker) = Attacker::new(false, false).await else { return };
    for sql in ["CREATE TEMPORARY TABLE mine ()", "RESET ROLE; CREATE TEMPORARY TABLE mine ()"] {
        assert_eq!(attacker.tries(sql).await, Err(REFUSED.to_owned()), "{sql}");
    }
}

#[tokio::test]
async fn an_entrys_place_time_and_hash_are_the_databases() {
    let Some(attacker) = Attacker::new(false, true).await else { return };
    let tenant = attacker.names_the_tenant().await;
    let insert = |columns: &str, values: &str| {
        format!(
            "INSERT INTO audit_logs (id, tenant_id, action, resource_type{columns})
             VALUES (gen_random_uuid(), '{tenant}', 'DATA_ACCESS', 'documents'{values})"
        )
    };
    // The same entry by the function that appends several.
    let append = |members: &str| {
        format!(
            "SELECT append_entries(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'tenant_id', '{tenant}',
                 'action', 'DATA_ACCESS', 'resource_type', 'documents', 'metadata', '{{}}'::jsonb) || {members}))"
        )
    };
    for (column, value) in [
        ("sequence", "1000"),
        ("created_at", "'1999-01-01'"),
        ("prev_hash", "repeat('f', 64)"),
        ("hash", "repeat('f', 64)"),
    ] {
        let sql = insert(&format!(", {column}"), &format!(", {value}"));
        assert_eq!(attacker.tries(&sql).await, Err(REFUSED.to_owned()), "{column}");
        let appending = format!("SET app.appending = 'on'; {sql}");
        assert_eq!(attacker.tries(&appending).await, Err(REFUSED.to_owned()), "{column}");
        attacker.tries(&append(&format!("jsonb_build_object('{column}', {value})"))).await.unwrap();
    }
    for sql in [
        "SET app.appending = 'on'; UPDATE audit_heads SET sequence = sequence + 1",
        &append("jsonb_build_object('tenant_id', '00000000-0000-7000-8000-000000000000')"),
        &append("'{\"tenant_id\": null}'"),
        &append("'{\"action\": null}'"),
        &append("jsonb_build_object('action', 'CHAIN_REPAIRED')"),
        &format!("SET app.current_tenant_id = ''; {}", append("'{}'")),
    ] {
        assert_eq!(attacker.tries(sql).await, Err(REFUSED.to_owned()), "{sql}");
    }
    // Whoever says that it appends gets the chain's place, too.
    attacker.tries(&format!("SET app.appending = 'on'; {}; SET app.appending = ''", insert("", ""))).await.unwrap();
    // Nor may it say that somebody has repaired the chain.
    let repair = insert("", "").replace("DATA_ACCESS", "CHAIN_REPAIRED");
    for prepare in ["", "RESET ROLE; ", "CREATE TEMPORARY TABLE audit_logs_mine (); "] {
        assert_eq!(attacker.tries(&format!("{prepare}{repair}")).await, Err(REFUSED.to_owned()), "{prepare}");
    }
    // What has no canonical form that PostgreSQL and RFC 8785 agree on is refused, and does not break the chain.
    for metadata in
        [r#"{"a": 1.5}"#, r#"{"a": 1e20}"#, r#"{"a": [1, 12345678901234567890]}"#, r#"{"\u00e4": 1}"#, r#"{"": 1}"#]
    {
        for sql in [
            insert(", metadata", &format!(", '{metadata}'")),
            append(&format!("jsonb_build_object('metadata', '{metadata}'::jsonb)")),
        ] {
            assert_eq!(attacker.tries(&sql).await, Err("23514".to_owned()), "{sql}");
        }
    }
    // What is taken continues the chain, whatever it holds: verify computes the hash by itself.
    let odd = [
        r#"{"b": 1, "a": -2, "aa": [true, null, {"z": [], "y": {}}], "A": "\"\\/\b\f\n\r\t\u0001\u001f\u007f"}"#,
        r#"{"x": "\u2028\u00e9\ud83d\ude00 </script>", "ids": ["a, b", "c\", \"d"]}"#,
        r#"{"ids": ["01a214ee-c09a-70cc-90b8-238d04357586", "x"], "none": ["", ""], "n": 999999999999999}"#,
    ];
    for (ip, agent, metadata) in [
        ("::1.2.3.4", "curl", odd[0]),
        ("2001:db8:0:0:1::", "a \"quoted\" \\ one\té", odd[1]),
        ("::ffff:192.0.2.1", "", odd[2]),
        ("192.0.2.1", "x", "{}"),
        ("192.0.2.2", "y", r#"{"found": true}"#),
        ("192.0.2.3", "y", r#"{"found": "true ", "b": false}"#),
    ] {
        let sql = insert(", ip, user_agent, metadata", &format!(", '{ip}', '{agent}', '{metadata}'"));
        attacker.tries(&sql).await.unwrap();
        let members =
            format!("jsonb_build_object('ip', '{ip}', 'user_agent', '{agent}', 'metadata', '{metadata}'::jsonb)");
        attacker.tries(&append(&members)).await.unwrap();
    }
    let late = "SELECT count(*)::text FROM audit_logs WHERE created_at NOT BETWEEN now() - interval '1 minute' AND clock_timestamp()";
    assert_eq!(attacker.text(late).await, "0");
    attacker.chains_hold().await;
}

#[tokio::test]
async fn an_owner_who_is_no_superuser_repairs_a_chain() {
    let Some(attacker) = Attacker::new(false, false).await else { return };
    let tenant = attacker.names_the_tenant().await;
    let strange = format!(
        "ALTER TABLE audit_logs DISABLE TRIGGER ALL;
         INSERT INTO audit_logs (id, tenant_id, sequence, action, resource_type, created_at, prev_hash, hash)
             SELECT gen_random_uuid(), '{tenant}', sequence + 1, 'CREATED', 'users', now(), hash, repeat('f', 64)
             FROM audit_heads WHERE tenant_id = '{tenant}';
         ALTER TABLE audit_logs ENABLE TRIGGER ALL"
    );
    attacker.app.execute(&strange).await;
    let said = attacker.operates(&["audit", "repair", "--tenant", "clinic-1", "--reason", "tested"]).await;
    assert!(said.contains(" was inserted behind the chain's end; repaired by entry "), "{said}");
    attacker.chains_hold().await;
    // The chain's end has its trigger again.
    let moved = format!("UPDATE audit_heads SET sequence = sequence + 1 WHERE tenant_id = '{tenant}'");
    let refused = attacker.app.owner.execute_unprepared(&moved).await.unwrap_err();
    assert!(refused.to_string().contains("append-only"), "{refused}");
}
