//! A sample of each resource. Tests that hold all resources to the same rules (roles, isolation, audit entries, the life of a
//! row) go through this list.

use serde_json::{Value, json};
use uuid::Uuid;

/// What the tests send to create and to change a row.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The name of the table; the path has hyphens in it.
    pub(crate) name: &'static str,
    /// The least role that may create, change, delete and restore a row.
    pub(crate) write: &'static str,
    /// A body that creates a row; where it refers to a user, to this one.
    pub(crate) new: fn(&Value) -> Value,
    /// A body that changes it.
    pub(crate) changes: fn() -> Value,
}

impl Sample {
    /// The path of the list, below `/api/v1/`.
    pub(crate) fn path(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// All resources.
pub(crate) const SAMPLES: &[Sample] = &[
    Sample {
        name: "users",
        write: "admin",
        new: |_| json!({"email": format!("{}@example.org", Uuid::now_v7()), "full_name": "Ada", "role": "viewer"}),
        changes: || json!({"full_name": "Ada King", "external_idp_id": Uuid::now_v7()}),
    },
    Sample {
        name: "documents",
        write: "member",
        new: |user| {
            json!({
                "user_id": user, "bucket": "files", "filename": "scan.pdf", "content_type": "application/pdf",
                "size_bytes": 7, "status": "failed", "metadata": {"pages": 3}
            })
        },
        changes: || json!({"filename": "new.pdf", "metadata": {}}),
    },
    // scripts/new-resource adds samples above this line.
];
