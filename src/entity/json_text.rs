//! JSON that is passed on as the database writes it.

use sea_orm::sea_query::{ArrayType, Nullable, ValueType, ValueTypeErr};
use sea_orm::sqlx::{self, Row};
use sea_orm::{ColIdx, ColumnType, DbErr, QueryResult, RuntimeErr, TryGetError, TryGetable, Value};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;

/// JSON as the database writes it. It is read to be passed on: taken apart, a list of numbers would need 16 times the memory.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// The text of a value.
    pub fn new(value: &serde_json::Value) -> Result<Self, serde_json::Error> {
        to_raw_value(value).map(Self)
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for JsonText {}

impl TryGetable for JsonText {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        type Text = Option<sqlx::types::Json<Box<RawValue>>>;
        let text = match (row.try_as_pg_row(), row.try_as_sqlite_row()) {
            (Some(row), _) => row.try_get::<Text, _>(index.as_sqlx_postgres_index()),
            (_, Some(row)) => row.try_get::<Text, _>(index.as_sqlx_sqlite_index()),
            _ => return Err(TryGetError::Null(format!("{index:?}"))),
        };
        let text = text.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))))?;
        text.map(|text| Self(text.0)).ok_or_else(|| TryGetError::Null(format!("{index:?}")))
    }
}

impl From<JsonText> for Value {
    fn from(text: JsonText) -> Self {
        // Text that has been read as JSON is JSON; were it not, the column takes no NULL.
        Self::Json(serde_json::from_str(text.0.get()).ok())
    }
}

impl ValueType for JsonText {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        match value {
            Value::Json(Some(value)) => Self::new(&value).map_err(|_| ValueTypeErr),
            _ => Err(ValueTypeErr),
        }
    }

    fn type_name() -> String {
        "JsonText".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Json
    }

    fn column_type() -> ColumnType {
        ColumnType::Json
    }
}

impl Nullable for JsonText {
    fn null() -> Value {
        Value::Json(None)
    }
}
