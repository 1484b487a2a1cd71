//! The routes of a resource, and how OpenAPI describes them.

use super::list::PageQuery;
use super::{Resource, handlers, path};
use crate::app::AppState;
use crate::error::ErrorCode;
use crate::error_response::{ErrorBody, Problem};
use axum::routing::{MethodRouter, get, post};
use std::borrow::Cow;
use std::collections::BTreeMap;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Content, OpenApiBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Responses};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

/// A page of a list, newest first.
#[derive(ToSchema)]
#[allow(dead_code, reason = "`Rows` writes it; OpenAPI describes it")]
pub(crate) struct List<T> {
    /// The page's rows: as many as were asked for, or fewer where they would be too long together.
    items: Vec<T>,
    /// Send it as `cursor` for the next page; null after the last page.
    #[schema(required, example = "AAZGuJ1i8VgBk2uA3EF7cb9r2hYVtq9E")]
    next_cursor: Option<String>,
}

/// The errors of every operation that needs no token.
const PUBLIC: [ErrorCode; 8] = [
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::DatabaseUnreachable,
    ErrorCode::ProviderUnreachable,
    ErrorCode::SchemaNotReady,
    ErrorCode::Overloaded,
    ErrorCode::NotIsolated,
    ErrorCode::DatabaseRefuses,
];

/// The errors that an operation has besides where it needs a token.
const AUTH: [ErrorCode; 11] = [
    ErrorCode::InvalidInput,
    ErrorCode::MissingField,
    ErrorCode::BadFormat,
    ErrorCode::InvalidToken,
    ErrorCode::TokenExpired,
    ErrorCode::BadSignature,
    ErrorCode::NoToken,
    ErrorCode::NoTenant,
    ErrorCode::BadTenant,
    ErrorCode::RoleNotSufficient,
    ErrorCode::TenantRefused,
];

/// The errors that an operation has besides where it takes a body.
const BODY: [ErrorCode; 3] = [ErrorCode::BodyTooSlow, ErrorCode::TooLarge, ErrorCode::UnsupportedMedia];

/// The errors that an Idempotency-Key brings.
const ONCE: &[ErrorCode] = &[ErrorCode::KeyOfAnother, ErrorCode::KeyAtWork];

/// Responses for these errors, from the registry.
fn errors(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<Response>> {
    errors_with_status(codes.iter().map(|code| (code.status(), *code)))
}

/// Responses for errors that have another status than the registry's. A response has an example of each of its errors.
fn errors_with_status(codes: impl IntoIterator<Item = (u16, ErrorCode)>) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<String, Vec<ErrorCode>>::new();
    for (status, code) in codes {
        by_status.entry(status.to_string()).or_default().push(code);
    }
    let response = |codes: Vec<ErrorCode>| {
        let description: Vec<String> = codes.iter().map(|code| described(*code)).collect();
        let example = |code: ErrorCode| {
            let example = Ref::new(format!("#/components/examples/{}", code.code()));
            (code.code().to_owned(), RefOr::<Example>::Ref(example))
        };
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(ErrorBody::name())))
            .examples_from_iter(codes.into_iter().map(example))
            .build();
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        ResponseBuilder::new()
            .description(description.join(" "))
            .content("application/json", content)
            .content(Problem::MEDIA_TYPE, problem)
    };
    by_status.into_iter().map(|(status, codes)| (status, response(codes).into())).collect()
}

fn described(code: ErrorCode) -> String {
    format!("{}: {}", code.code(), code.message())
}

/// A body of every error of the registry, for the document's components.
pub(crate) fn error_examples() -> impl Iterator<Item = (String, Example)> {
    ErrorCode::ALL.iter().map(|code| {
        let body = ErrorBody::new(*code, None, None, REQUEST_ID.to_owned());
        // A struct of strings has a value.
        let value = serde_json::to_value(body).ok();
        (code.code().to_owned(), ExampleBuilder::new().summary(described(*code)).value(value).build())
    })
}

const REQUEST_ID: &str = "0193b7a6-7c1e-7d4c-9f1b-2f6f7f3e9a10";

macro_rules! error_responses {
    ($($(#[doc = $doc:literal])+ $name:ident = $codes:expr;)+) => {
        $(
            $(#[doc = $doc])+
            pub(crate) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    errors(&$codes)
                }
            }
        )+
    };
}

// For operations that `#[utoipa::path]` describes.
error_responses! {
    /// The errors of every operation.
    PublicErrors = PUBLIC;
    /// The errors of every operation that needs a token.
    AuthErrors = [&PUBLIC[..], &AUTH[..]].concat();
    /// The errors of every operation that takes a body.
    BodyErrors = BODY;
    /// The errors of what a logout asks for.
    LogoutErrors = [
        ErrorCode::RedirectNotAllowed, ErrorCode::InvalidInput, ErrorCode::MissingField, ErrorCode::BadFormat,
    ];
    /// The error of a row that is not there.
    NotFound = [ErrorCode::NotFound];
    /// The error of an If-Match header.
    PreconditionFailed = [ErrorCode::Stale];
}

/// The errors of the end of a login. A refused code is a 400, since a 401 would ask for a token.
pub(crate) struct CallbackErrors;

impl IntoResponses for CallbackErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let refused = [
            ErrorCode::InvalidToken,
            ErrorCode::BadSignature,
            ErrorCode::InvalidInput,
            ErrorCode::MissingField,
            ErrorCode::BadFormat,
        ];
        let forbidden = [ErrorCode::StateMismatch, ErrorCode::NoTenant, ErrorCode::BadTenant, ErrorCode::TenantRefused];
        errors_with_status(refused.map(|code| (400, code)).into_iter().chain(forbidden.map(|code| (403, code))))
    }
}

/// The six operations of a resource, with their descriptions.
pub(crate) fn routes<R: Resource>() -> OpenApiRouter<AppState> {
    let collection = format!("/{}", path::<R>());
    let item = format!("{collection}/{{id}}");
    let restoration = format!("{item}/restore");
    let view = <R::Model as ToSchema>::name();
    let conflict: &[ErrorCode] = if R::UNIQUE.is_empty() { &[] } else { &[ErrorCode::Conflict] };
    let not_found: &[ErrorCode] = &[ErrorCode::NotFound];
    let one_version: &[ErrorCode] = &[ErrorCode::NotFound, ErrorCode::Stale];
    let id = parameter("id", ParameterIn::Path, Required::True, uuid(), "The row's id.");
    let version = "The ETag of the version that is expected.";
    let if_match = parameter("If-Match", ParameterIn::Header, Required::False, text_like(ETAGS), version);
    let known = "ETags of versions that the caller has: if the row is one of them, the answer is 304 without a body.";
    let if_none_match = parameter("If-None-Match", ParameterIn::Header, Required::False, text_like(ETAGS), known);
    let preference = "`return=minimal`: the answer has headers alone.";
    let prefer = parameter("Prefer", ParameterIn::Header, Required::False, string(), preference);
    let once = "A string in quotes, 1 to 255 printable ASCII characters, new for each new request: what is sent again within 24 \
        hours, by the same caller with the same body, makes no second row.";
    let idempotency_key = parameter("Idempotency-Key", ParameterIn::Header, Required::False, text_like(KEY), once);
    let row = || json_response("The row as it is now.", view.clone()).header("ETag", header("The row's version."));
    let unchanged = || ResponseBuilder::new().description("The caller has this version.");
    let without_body = || {
        ResponseBuilder::new()
            .description("As 200, for `Prefer: return=minimal`.")
            .header("ETag", header("The row's version."))
    };

    let list = Description::new::<R>("list", "s", "Lists", &[])
        .note("Rows are in the order of their creation, newest first.")
        .parameters(R::Filter::into_params(|| Some(ParameterIn::Query)))
        .parameters(PageQuery::into_params(|| Some(ParameterIn::Query)))
        .responds("200", json_response("A page of the list.", list_name::<R::Model>()));
    let create = Description::new::<R>("create", "", "Creates", &[&BODY[..], ONCE, conflict, R::CREATE_ERRORS].concat())
        .parameters([idempotency_key, prefer.clone()])
        .body::<R::New>()
        .responds("201", row().header("Location", header("The row's address.")).header(
            "Idempotency-Replayed",
            header("`true`, where the row was made by an earlier request with the same Idempotency-Key. It is then as it is now; \
                there is no body if it is deleted."),
        ));
    let get_one = Description::new::<R>("get", "", "Returns", not_found)
        .parameters([id.clone(), if_none_match])
        .responds("200", row())
        .responds("304", unchanged());
    let update_errors = [&BODY[..], one_version, R::UPDATE_ERRORS].concat();
    let update = Description::new::<R>("update", "", "Updates", &update_errors)
        .note(R::UPDATE_NOTE)
        .parameters([id.clone(), if_match.clone(), prefer.clone()])
        .body::<R::Changes>()
        .responds("200", row())
        .responds("204", without_body());
    let delete = Description::new::<R>("delete", "", "Deletes", &[one_version, R::DELETE_ERRORS].concat())
        .note(R::DELETE_NOTE)
        .parameters([id.clone(), if_match])
        .responds("204", ResponseBuilder::new().description("Deleted."));
    let restore = Description::new::<R>("restore", "", "Restores", &[not_found, conflict].concat())
        .note("A row that is not deleted is returned as it is.")
        .parameters([id, prefer])
        .responds("200", row())
        .responds("204", without_body());

    let mut schemas = Vec::new();
    add_schema::<R::Model>(&mut schemas);
    add_schema::<R::New>(&mut schemas);
    add_schema::<R::Changes>(&mut schemas);
    schemas.push((list_name::<R::Model>(), List::<R::Model>::schema()));
    schemas.push((ErrorBody::name().into_owned(), ErrorBody::schema()));
    ErrorBody::schemas(&mut schemas);
    schemas.push((Problem::name().into_owned(), Problem::schema()));
    let tag = TagBuilder::new().name(R::NAME).description(Some(R::DESCRIPTION)).build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(route(
            &collection,
            schemas,
            [(HttpMethod::Get, list), (HttpMethod::Post, create)],
            get(handlers::list::<R>).post(handlers::create::<R>),
        ))
        .routes(route(
            &item,
            Vec::new(),
            [(HttpMethod::Get, get_one), (HttpMethod::Patch, update), (HttpMethod::Delete, delete)],
            get(handlers::get::<R>).patch(handlers::update::<R>).delete(handlers::delete::<R>),
        ))
        .routes(route(&restoration, Vec::new(), [(HttpMethod::Post, restore)], post(handlers::restore::<R>)))
}

type Schemas = Vec<(String, RefOr<Schema>)>;

fn route<const N: usize>(
    path: &str,
    schemas: Schemas,
    operations: [(HttpMethod, Description); N],
    router: MethodRouter<AppState>,
) -> UtoipaMethodRouter<AppState> {
    let mut item = PathItem::default();
    for (method, description) in operations {
        item.merge_operations(PathItem::new(method, description.build()));
    }
    (schemas, PathsBuilder::new().path(path, item).build(), router)
}

/// The description of an operation.
struct Description {
    operation: OperationBuilder,
    responses: BTreeMap<String, RefOr<Response>>,
}

impl Description {
    /// Of an operation that needs a token: its id is `verb` and the resource's name.
    fn new<R: Resource>(verb: &str, plural: &str, does: &str, codes: &[ErrorCode]) -> Self {
        let singular = R::SINGULAR;
        let object = if plural.is_empty() { one(singular) } else { R::NAME.replace('_', " ") };
        let operation = OperationBuilder::new()
            .tag(R::NAME)
            .operation_id(Some(format!("{verb}{singular}{plural}")))
            .summary(Some(format!("{does} {object} of the caller's tenant.")))
            .security(SecurityRequirement::new("bearer", Vec::<String>::new()));
        Self { operation, responses: errors(&[&PUBLIC[..], &AUTH[..], codes].concat()) }
    }

    fn note(mut self, note: &str) -> Self {
        if !note.is_empty() {
            self.operation = self.operation.description(Some(note));
        }
        self
    }

    fn parameters(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        for parameter in parameters {
            self.operation = self.operation.parameter(parameter);
        }
        self
    }

    fn body<T: ToSchema>(mut self) -> Self {
        let body = RequestBodyBuilder::new().content("application/json", json_content(T::name()));
        self.operation = self.operation.request_body(Some(body.required(Some(Required::True)).build()));
        self
    }

    fn responds(mut self, status: &str, response: ResponseBuilder) -> Self {
        self.responses.insert(status.to_owned(), response.build().into());
        self
    }

    fn build(self) -> Operation {
        let mut responses = Responses::new();
        responses.responses = self.responses;
        self.operation.responses(responses).build()
    }
}

/// `LabResult` in words: "a lab result".
fn one(name: &str) -> String {
    // "A user", but "an ultrasound".
    let vowel = name.starts_with(['A', 'E', 'I', 'O', 'U']) && !name.starts_with("Us") && !name.starts_with("Uni");
    let mut words = String::from(if vowel { "an" } else { "a" });
    for letter in name.chars() {
        if letter.is_uppercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn json_content(schema: Cow<'static, str>) -> Content {
    Content::new(Some(Ref::from_schema_name(schema)))
}

fn json_response(description: &str, schema: impl Into<Cow<'static, str>>) -> ResponseBuilder {
    ResponseBuilder::new().description(description).content("application/json", json_content(schema.into()))
}

fn header(description: &str) -> Header {
    utoipa::openapi::header::HeaderBuilder::new().schema(Some(string())).description(Some(description)).build()
}

fn parameter(name: &str, place: ParameterIn, required: Required, schema: Schema, description: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
    parameter.schema(Some(schema)).description(Some(description)).build()
}

fn string() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).build().into()
}

/// ETags, separated by commas, or `*` (RFC 9110, section 8.8.3), as a header's pattern. A tag has no comma.
const ETAGS: &str = r#"^(\*|(W/)?"[\x21\x23-\x2b\x2d-\x7e]*"( *, *(W/)?"[\x21\x23-\x2b\x2d-\x7e]*")*)$"#;

/// A string of RFC 8941, section 3.3.3.
const KEY: &str = r#"^"([\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"$"#;

fn text_like(pattern: &'static str) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build().into()
}

fn uuid() -> Schema {
    let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
}

/// What the document calls a page of these rows.
pub(crate) fn list_name<T: ToSchema>() -> String {
    format!("{}List", T::name())
}

fn add_schema<T: ToSchema>(schemas: &mut Schemas) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}
