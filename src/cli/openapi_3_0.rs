//! Says an OpenAPI 3.1 document in OpenAPI 3.0.3, for tools that know no later version.
//!
//! What differs is listed at learn.openapis.org, "Upgrading from OpenAPI 3.0 to 3.1", and in the specification's versions/3.0.3.md.

use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// The document in OpenAPI 3.0.3. What 3.0 has no word for is left out.
pub(super) fn of(mut document: Value) -> Value {
    if let Some(root) = document.as_object_mut() {
        root.insert("openapi".to_owned(), "3.0.3".into());
        root.remove("jsonSchemaDialect");
        root.remove("webhooks");
        root.entry("paths").or_insert_with(|| json!({}));
        if let Some(info) = root.get_mut("info").and_then(Value::as_object_mut) {
            info.remove("summary");
            if let Some(license) = info.get_mut("license").and_then(Value::as_object_mut) {
                license.remove("identifier");
            }
        }
        if let Some(components) = root.get_mut("components").and_then(Value::as_object_mut) {
            components.remove("pathItems");
            if let Some(Value::Object(schemas)) = components.get_mut("schemas") {
                schemas.values_mut().for_each(schema);
            }
        }
        for (name, value) in root {
            match (name.as_str(), value) {
                ("components", Value::Object(components)) => {
                    components.iter_mut().filter(|(name, _)| *name != "schemas").for_each(|(_, value)| others(value));
                }
                (_, value) => others(value),
            }
        }
    }
    document
}

/// Looks for schemas in what is none.
fn others(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(others),
        Value::Object(object) => {
            // What stands beside a reference is a schema's alone to replace; elsewhere 3.0 ignores it.
            if object.get("$ref").is_some_and(Value::is_string) {
                object.retain(|name, _| name == "$ref");
            }
            for (name, value) in object {
                match name.as_str() {
                    "schema" => schema(value),
                    // Texts and values of the API.
                    "example" | "examples" | "value" | "default" | "enum" => {}
                    extension if extension.starts_with("x-") => {}
                    _ => others(value),
                }
            }
        }
        _ => {}
    }
}

/// Says a schema, and those in it, in the words of 3.0.
fn schema(value: &mut Value) {
    if let Value::Bool(any) = *value {
        *value = if any { json!({}) } else { json!({"not": {}}) };
    }
    let Value::Object(schema) = value else { return };
    inner(schema);
    reference(schema);
    null_as_a_branch(schema);
    types(schema);
    bounds(schema);
    if let Some(value) = schema.remove("const") {
        schema.insert("enum".to_owned(), json!([value]));
    }
    if let Some(Value::Array(examples)) = schema.remove("examples")
        && let Some(first) = examples.into_iter().next()
    {
        schema.entry("example").or_insert(first);
    }
    match schema.remove("contentEncoding").as_ref().and_then(Value::as_str) {
        Some("base64") => drop(schema.entry("format").or_insert("byte".into())),
        _ if schema.contains_key("contentMediaType") => drop(schema.entry("format").or_insert("binary".into())),
        _ => {}
    }
    if let Some(Value::Array(places)) = schema.remove("prefixItems") {
        let more = schema.remove("items").filter(|items| *items != json!({"not": {}}));
        schema.insert("items".to_owned(), json!({"anyOf": places.into_iter().chain(more).collect::<Vec<_>>()}));
    }
    if schema.get("type").is_some_and(|name| name == "array") {
        schema.entry("items").or_insert_with(|| json!({}));
    }
    schema.retain(|name, _| is_known(name));
}

fn inner(object: &mut Object) {
    for (name, value) in object {
        match (name.as_str(), value) {
            // Also here, 3.0 has no schemas that are booleans, save the one that follows.
            ("items" | "not", value) => schema(value),
            ("additionalProperties", value) if !value.is_boolean() => schema(value),
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(branches)) => {
                branches.iter_mut().for_each(schema);
            }
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(schema),
            _ => {}
        }
    }
}

/// 3.0 ignores what stands beside a reference.
fn reference(schema: &mut Object) {
    if schema.len() > 1
        && let Some(reference) = schema.remove("$ref")
    {
        all_of(schema, json!({"$ref": reference}));
    }
}

/// `anyOf` or `oneOf` with null as one branch is what the others say, and `nullable`. To the letter, 3.0.3 has the keyword of a
/// `type` beside it alone; generators of clients take it of a reference in `allOf`, too.
fn null_as_a_branch(schema: &mut Object) {
    for keyword in ["anyOf", "oneOf"] {
        let Some(Value::Array(branches)) = schema.get_mut(keyword) else { continue };
        let before = branches.len();
        branches.retain(|branch| *branch != only_null());
        if branches.len() == before {
            continue;
        }
        if branches.len() == 1 && !schema.contains_key("allOf") {
            let branch = schema.remove(keyword).unwrap_or_default();
            match branch.get(0) {
                Some(Value::Object(own))
                    if !own.contains_key("$ref") && own.keys().all(|name| !schema.contains_key(name)) =>
                {
                    schema.extend(own.clone());
                }
                _ => drop(schema.insert("allOf".to_owned(), branch)),
            }
        }
        schema.insert("nullable".to_owned(), true.into());
    }
}

/// What [`types`] makes of the type null.
fn only_null() -> Value {
    json!({"nullable": true, "enum": [null]})
}

fn types(schema: &mut Object) {
    let types = match schema.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(Value::String(name)) if name == "null" => vec![name.as_str().into()],
        _ => return,
    };
    schema.remove("type");
    let (null, mut others): (Vec<Value>, Vec<Value>) = types.into_iter().partition(|name| name == "null");
    if !null.is_empty() {
        schema.insert("nullable".to_owned(), true.into());
    }
    match others.len() {
        0 => drop(schema.insert("enum".to_owned(), json!([null]))),
        1 => drop(schema.insert("type".to_owned(), others.remove(0))),
        _ => {
            let branches: Vec<Value> = others.into_iter().map(|name| json!({"type": name})).collect();
            if schema.contains_key("anyOf") {
                all_of(schema, json!({"anyOf": branches}));
            } else {
                schema.insert("anyOf".to_owned(), branches.into());
            }
        }
    }
}

fn all_of(schema: &mut Object, branch: Value) {
    if let Value::Array(branches) = schema.entry("allOf").or_insert_with(|| json!([])) {
        branches.push(branch);
    }
}

/// In 3.0, `exclusiveMinimum` says of `minimum` that it is none of the values.
fn bounds(schema: &mut Object) {
    for (exclusive, inclusive, tighter) in
        [("exclusiveMinimum", "minimum", f64::gt as fn(&f64, &f64) -> bool), ("exclusiveMaximum", "maximum", f64::lt)]
    {
        let Some(bound) = schema.get(exclusive).filter(|bound| bound.is_number()).cloned() else { continue };
        let other = schema.get(inclusive).and_then(Value::as_f64);
        if other.zip(bound.as_f64()).is_some_and(|(other, bound)| tighter(&other, &bound)) {
            schema.remove(exclusive);
        } else {
            schema.insert(inclusive.to_owned(), bound);
            schema.insert(exclusive.to_owned(), true.into());
        }
    }
}

/// The fixed fields of the Schema Object (versions/3.0.3.md), a reference, and extensions.
fn is_known(name: &str) -> bool {
    const KNOWN: &[&str] = &[
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "default",
        "deprecated",
        "description",
        "discriminator",
        "enum",
        "example",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "externalDocs",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "not",
        "nullable",
        "oneOf",
        "pattern",
        "properties",
        "readOnly",
        "required",
        "title",
        "type",
        "uniqueItems",
        "writeOnly",
        "xml",
    ];
    KNOWN.contains(&name) || name.starts_with("x-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(mut of: Value) -> Value {
        schema(&mut of);
        of
    }

    #[test]
    fn schemas_are_said_in_words_of_3_0() {
        for (of_3_1, of_3_0) in [
            (
                json!({"type": ["string", "null"], "format": "uuid"}),
                json!({"type": "string", "nullable": true, "format": "uuid"}),
            ),
            (json!({"type": ["string", "integer"]}), json!({"anyOf": [{"type": "string"}, {"type": "integer"}]})),
            (
                json!({"type": ["string", "integer", "null"], "anyOf": [{"minimum": 1}]}),
                json!({"anyOf": [{"minimum": 1}], "allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]}], "nullable": true}),
            ),
            (json!({"type": "null"}), json!({"nullable": true, "enum": [null]})),
            (json!({"const": "a"}), json!({"enum": ["a"]})),
            (json!({"examples": [1, 2]}), json!({"example": 1})),
            (json!({"exclusiveMinimum": 0}), json!({"minimum": 0, "exclusiveMinimum": true})),
            (json!({"exclusiveMinimum": 0, "minimum": 2}), json!({"minimum": 2})),
            (json!({"exclusiveMaximum": 9.5, "maximum": 12}), json!({"maximum": 9.5, "exclusiveMaximum": true})),
            (
                json!({"$ref": "#/components/schemas/A", "description": "b"}),
                json!({"allOf": [{"$ref": "#/components/schemas/A"}], "description": "b"}),
            ),
            (json!({"$ref": "#/components/schemas/A"}), json!({"$ref": "#/components/schemas/A"})),
            (
                json!({"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/A"}]}),
                json!({"allOf": [{"$ref": "#/components/schemas/A"}], "nullable": true}),
            ),
            (json!({"anyOf": [{"type": "null"}, {"type": "string"}]}), json!({"type": "string", "nullable": true})),
            (
                json!({"anyOf": [{"type": "null"}, {"type": "string"}, {"type": "integer"}]}),
                json!({"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": true}),
            ),
            (
                json!({"type": "array", "prefixItems": [{"type": ["string", "null"]}], "items": false}),
                json!({"type": "array", "items": {"anyOf": [{"type": "string", "nullable": true}]}}),
            ),
            (json!({"type": "array"}), json!({"type": "array", "items": {}})),
            (json!({"type": "string", "contentEncoding": "base64"}), json!({"type": "string", "format": "byte"})),
            (json!({"contentMediaType": "image/png"}), json!({"format": "binary"})),
            (
                json!({"additionalProperties": false, "propertyNames": {}, "$comment": "c"}),
                json!({"additionalProperties": false}),
            ),
            (json!({"not": true, "x-own": {"type": ["a"]}}), json!({"not": {}, "x-own": {"type": ["a"]}})),
            // Names of properties and values are no keywords.
            (
                json!({"properties": {"const": {"const": 1}, "type": true}, "default": {"const": 1}, "enum": [{"type": ["a"]}]}),
                json!({"properties": {"const": {"enum": [1]}, "type": {}}, "default": {"const": 1}, "enum": [{"type": ["a"]}]}),
            ),
        ] {
            assert_eq!(said(of_3_1.clone()), of_3_0, "{of_3_1}");
        }
    }

    #[test]
    fn the_rest_of_a_document_stays_as_it_is() {
        let document = json!({
            "openapi": "3.1.0", "jsonSchemaDialect": "x", "webhooks": {},
            "info": {"title": "t", "summary": "s", "license": {"name": "MIT", "identifier": "MIT"}},
            "components": {
                "schemas": {"schema": {"const": 1}},
                "parameters": {"P": {"name": "p", "schema": {"type": ["integer", "null"]}, "example": {"schema": {"const": 1}}}},
                "examples": {"E": {"value": {"schema": {"const": 1}}}},
            },
        });
        let expected = json!({
            "openapi": "3.0.3", "paths": {},
            "info": {"title": "t", "license": {"name": "MIT"}},
            "components": {
                "schemas": {"schema": {"enum": [1]}},
                "parameters": {"P": {"name": "p", "schema": {"type": "integer", "nullable": true}, "example": {"schema": {"const": 1}}}},
                "examples": {"E": {"value": {"schema": {"const": 1}}}},
            },
        });
        assert_eq!(of(document), expected);
    }
}
