"""Holds breaking.py to what it is for."""

import copy
import unittest

from breaking import breaking, series

TEXT = {"type": "string"}


def content(schema):
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def parameter(name, place, **more):
    return {"name": name, "in": place, "schema": TEXT, **more}


ANSWER = {"description": "", "content": content("Thing"), "headers": {"ETag": {"schema": TEXT}}}
ERROR = {"description": "", "content": content("Thing")}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Things", "version": "0.1.0"},
    "paths": {
        "/things": {
            "get": {
                "operationId": "listThings",
                "parameters": [parameter("cursor", "query"), parameter("limit", "query")],
                "responses": {"200": {"description": "", "content": content("ThingList")}},
            },
            "post": {
                "operationId": "createThing",
                "requestBody": {"required": True, "content": content("NewThing")},
                "responses": {"201": ANSWER, "409": ERROR},
                "security": [{"bearer": []}],
            },
        },
        "/things/{id}": {
            "parameters": [parameter("id", "path", required=True)],
            "get": {"operationId": "getThing", "responses": {"200": ANSWER, "404": ERROR}, "security": [{}]},
        },
    },
    "components": {
        "schemas": {
            "Thing": {
                "type": "object",
                "required": ["name", "size"],
                "properties": {
                    "name": TEXT,
                    "size": {"type": "integer"},
                    "note": {"type": ["string", "null"]},
                    "status": {"oneOf": [{"$ref": "#/components/schemas/Status"}, {"type": "null"}]},
                    "parent": {"$ref": "#/components/schemas/Thing"},
                },
            },
            "ThingList": {"type": "object", "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}}},
            "NewThing": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 10},
                    "note": TEXT,
                    "status": {"$ref": "#/components/schemas/Status"},
                },
                "additionalProperties": False,
            },
            "Status": {"type": "string", "enum": ["new", "old"]},
        }
    },
}


class Breaking(unittest.TestCase):
    def changed(self, change):
        new = copy.deepcopy(DOCUMENT)
        change(new["paths"], new["components"]["schemas"], new)
        return breaking(DOCUMENT, new)

    def breaks(self, what, change):
        found, allowed = self.changed(change)
        self.assertTrue(any(what in line for line in found), (what, found))
        self.assertFalse(allowed)

    def passes(self, change):
        self.assertEqual(self.changed(change), ([], False))

    def test_what_is_gone_breaks(self):
        self.breaks("/things/{id}: the path is gone", lambda paths, *_: paths.pop("/things/{id}"))
        self.breaks("GET /things: the operation is gone", lambda paths, *_: paths["/things"].pop("get"))
        self.breaks("POST /things: body: note: the field", lambda _, schemas, __: schemas["NewThing"]["properties"].pop("note"))
        self.breaks("GET /things: 200: items: items: note: the field", lambda _, schemas, __: schemas["Thing"]["properties"].pop("note"))
        self.breaks("the answer 201 is gone", lambda paths, *_: paths["/things"]["post"]["responses"].pop("201"))
        self.breaks("the header ETag", lambda paths, *_: paths["/things"]["post"]["responses"]["201"].update(headers={}))
        self.breaks("application/json is gone", lambda paths, *_: paths["/things"]["post"]["requestBody"].update(content={}))
        self.breaks("query parameter cursor is gone", lambda paths, *_: paths["/things"]["get"]["parameters"].pop(0))
        self.breaks("the request's body is gone", lambda paths, *_: paths["/things"]["post"].pop("requestBody"))

    def test_what_is_required_now_breaks(self):
        required = parameter("x", "header", required=True)
        self.breaks("parameter x: it is new, and required", lambda paths, *_: paths["/things"]["get"]["parameters"].append(required))
        self.breaks("limit: it is required now", lambda paths, *_: paths["/things"]["get"]["parameters"][1].update(required=True))
        self.breaks("body: note: it is required now", lambda _, schemas, __: schemas["NewThing"]["required"].append("note"))
        self.breaks("size: it may be missing now", lambda _, schemas, __: schemas["Thing"]["required"].remove("size"))
        self.breaks("it needs a token", lambda paths, *_: paths["/things/{id}"]["get"].update(security=[{"bearer": []}]))
        self.breaks("body is required now", lambda paths, *_: paths["/things"]["get"].update(requestBody={"required": True, "content": {}}))

    def test_other_values_break(self):
        self.breaks("items: size: the type was integer", lambda _, schemas, __: schemas["Thing"]["properties"]["size"].update(type="string"))
        self.breaks("items: name: the type was string", lambda _, schemas, __: schemas["Thing"]["properties"].update(name={"type": ["string", "null"]}))
        self.breaks("items: name: the type was string, and is any", lambda _, schemas, __: schemas["Thing"]["properties"].update(name={}))
        self.breaks("items: status: oneOf 1: the values", lambda _, schemas, __: schemas["Status"]["enum"].append("lost"))
        self.breaks("body: status: the values", lambda _, schemas, __: schemas["Status"]["enum"].remove("old"))
        self.breaks("body: name: maxLength was 10, and is 9", lambda _, schemas, __: schemas["NewThing"]["properties"]["name"].update(maxLength=9))
        self.breaks("body: note: minLength was None", lambda _, schemas, __: schemas["NewThing"]["properties"].update(note={**TEXT, "minLength": 1}))
        self.breaks("body: note: pattern", lambda _, schemas, __: schemas["NewThing"]["properties"].update(note={**TEXT, "pattern": "^a$"}))
        self.breaks("oneOf has other branches", lambda _, schemas, __: schemas["Thing"]["properties"]["status"]["oneOf"].pop())
        self.breaks("operationId", lambda paths, *_: paths["/things"]["get"].update(operationId="other"))

    def test_what_is_added_passes(self):
        self.passes(lambda *_: None)
        self.passes(lambda paths, *_: paths.update({"/new": copy.deepcopy(paths["/things"])}))
        self.passes(lambda paths, *_: paths["/things/{id}"].update(delete={"responses": {}}))
        self.passes(lambda paths, *_: paths["/things"]["get"]["parameters"].append(parameter("x", "query")))
        self.passes(lambda _, schemas, __: schemas["Thing"]["properties"].update(extra=TEXT))
        self.passes(lambda _, schemas, __: schemas["NewThing"]["properties"].update(extra=TEXT))
        self.passes(lambda _, schemas, __: schemas["NewThing"]["required"].remove("name"))
        self.passes(lambda _, schemas, __: schemas["NewThing"]["properties"]["name"].update(maxLength=11))
        self.passes(lambda _, schemas, __: schemas["Thing"]["required"].append("note"))
        self.passes(lambda paths, *_: paths["/things"]["post"]["responses"].update({"412": ERROR}))
        self.passes(lambda paths, *_: paths["/things"]["post"]["responses"].pop("409"))
        self.passes(lambda paths, *_: paths["/things"]["post"].update(security=[]))

    def test_a_version_of_another_series_may_break(self):
        def change(paths, _, document):
            paths.pop("/things")
            document["info"]["version"] = "0.2.0"

        found, allowed = self.changed(change)
        self.assertTrue(found and allowed)
        self.assertTrue(series("0.1.9") < series("0.2.0") < series("1.0.0") < series("2.0.0"))
        self.assertEqual(series("1.2.3"), series("1.9.0"))
        self.assertEqual(series("0.2.3"), series("0.2.0-rc.1"))
        self.assertNotEqual(series("0.0.1"), series("0.0.2"))


if __name__ == "__main__":
    unittest.main(verbosity=0)
