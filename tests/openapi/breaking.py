"""Says what of an OpenAPI 3.1 document breaks clients that were made for an older one.

breaking.py OLD NEW

Requests of old clients must be valid still, and they must understand the answers: of a request's schema, the new one takes what
the old one took; of an answer's schema, the old one takes what the new one gives. Fields that an answer has besides break
nobody. Where the first number of the version that is not 0 is higher, breaking changes are told, and are no failure.
"""

import json
import sys

METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"]
# (keyword, whether a higher value takes more)
BOUNDS = [
    ("minimum", False), ("exclusiveMinimum", False), ("minLength", False), ("minItems", False), ("minProperties", False),
    ("maximum", True), ("exclusiveMaximum", True), ("maxLength", True), ("maxItems", True), ("maxProperties", True),
]
# What is not understood must stay as it is.
SAME = ["format", "pattern", "const", "not", "multipleOf", "uniqueItems", "prefixItems"]


class Comparison:
    def __init__(self, old, new):
        self.old, self.new = old, new
        self.found = []
        self.seen = set()

    def breaks(self, where, what):
        self.found.append(f"{where}: {what}")

    def resolved(self, document, value):
        while "$ref" in value:
            target = document
            for part in value["$ref"].removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            value = {**target, **{name: of for name, of in value.items() if name != "$ref"}}
        return value

    def documents(self):
        for path, old in self.old.get("paths", {}).items():
            new = self.new.get("paths", {}).get(path)
            if new is None:
                self.breaks(path, "the path is gone")
                continue
            for method in METHODS:
                where = f"{method.upper()} {path}"
                if method in old and method not in new:
                    self.breaks(where, "the operation is gone")
                elif method in old:
                    self.operation(where, [old, old[method]], [new, new[method]])
        return self.found

    def operation(self, where, old, new):
        self.parameters(where, self.of_operation(self.old, old), self.of_operation(self.new, new))
        old, new = old[1], new[1]
        if old.get("operationId") != new.get("operationId"):
            self.breaks(where, "operationId, which names generated functions, is another")
        if is_open(old) and not is_open(new):
            self.breaks(where, "it needs a token now")
        self.body(where, old.get("requestBody"), new.get("requestBody"))
        for status, answer in old.get("responses", {}).items():
            if status not in new.get("responses", {}):
                # That an error does not happen any more breaks nobody.
                if status.startswith(("2", "3")):
                    self.breaks(where, f"the answer {status} is gone")
                continue
            there = self.resolved(self.new, new["responses"][status])
            answer = self.resolved(self.old, answer)
            self.contents(f"{where}: {status}", answer, there, request=False)
            for name, header in answer.get("headers", {}).items():
                if name not in there.get("headers", {}):
                    self.breaks(f"{where}: {status}", f"the header {name} is gone")

    def of_operation(self, document, levels):
        parameters = [self.resolved(document, one) for level in levels for one in level.get("parameters", [])]
        return {(one["in"], one["name"]): one for one in parameters}

    def parameters(self, where, old, new):
        for key, parameter in new.items():
            name = f"{where}: {key[0]} parameter {key[1]}"
            if key not in old:
                if parameter.get("required"):
                    self.breaks(name, "it is new, and required")
                continue
            if parameter.get("required") and not old[key].get("required"):
                self.breaks(name, "it is required now")
            self.schemas(name, old[key].get("schema", {}), parameter.get("schema", {}), request=True)
        for key in old.keys() - new.keys():
            self.breaks(where, f"{key[0]} parameter {key[1]} is gone")

    def body(self, where, old, new):
        old = self.resolved(self.old, old) if old else None
        new = self.resolved(self.new, new) if new else None
        if old and not new:
            self.breaks(where, "the request's body is gone")
        elif new and new.get("required") and not (old and old.get("required")):
            self.breaks(where, "the request's body is required now")
        elif old:
            self.contents(f"{where}: body", old, new, request=True)

    def contents(self, where, old, new, request):
        for media_type, content in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                self.breaks(where, f"{media_type} is gone")
                continue
            there = new["content"][media_type]
            self.schemas(where, content.get("schema", {}), there.get("schema", {}), request)

    def schemas(self, where, old, new, request):
        """Whether the one that must take more takes all of the other."""
        pair = (json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True), request)
        if "$ref" in old and pair in self.seen:
            return
        self.seen.add(pair)
        old, new = self.resolved(self.old, as_object(old)), self.resolved(self.new, as_object(new))
        less, more = (old, new) if request else (new, old)
        if "type" in more:
            lost = types(less) - types(more)
            if "type" not in less or lost - ({"integer"} if "number" in types(more) else set()):
                self.breaks(where, f"the type was {shown(old)}, and is {shown(new)}")
        if "enum" in more and ("enum" not in less or any(value not in more["enum"] for value in less["enum"])):
            self.breaks(where, f"the values were {old.get('enum')}, and are {new.get('enum')}")
        for keyword, higher in BOUNDS:
            if keyword in more:
                bound = less.get(keyword)
                if bound is None or (bound > more[keyword] if higher else bound < more[keyword]):
                    self.breaks(where, f"{keyword} was {old.get(keyword)}, and is {new.get(keyword)}")
        for keyword in SAME:
            if keyword in more and less.get(keyword) != more[keyword]:
                self.breaks(where, f"{keyword} was {old.get(keyword)}, and is {new.get(keyword)}")
        for keyword in ["allOf", "anyOf", "oneOf"]:
            self.branches(where, keyword, old, new, request)
        for name in sorted(set(more.get("required", [])) - set(less.get("required", []))):
            self.breaks(f"{where}: {name}", "it is required now" if request else "it may be missing now")
        kept = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name in kept:
                self.schemas(f"{where}: {name}", schema, kept[name], request)
            else:
                self.breaks(f"{where}: {name}", "the field is gone")
        if more.get("additionalProperties") is False and less.get("additionalProperties") is not False and request:
            self.breaks(where, "further fields are refused now")
        for keyword in ["items", "additionalProperties"]:
            if isinstance(more.get(keyword), dict):
                self.schemas(f"{where}: {keyword}", old.get(keyword, {}), new.get(keyword, {}), request)

    def branches(self, where, keyword, old, new, request):
        olds, news = old.get(keyword), new.get(keyword)
        if olds is None and news is None:
            return
        if olds is None or news is None or len(olds) != len(news):
            self.breaks(where, f"{keyword} has other branches")
            return
        for number, (was, now) in enumerate(zip(olds, news)):
            self.schemas(f"{where}: {keyword} {number + 1}", was, now, request)


def is_open(operation):
    return not operation.get("security") or {} in operation["security"]


def as_object(schema):
    return {True: {}, False: {"not": {}}}[schema] if isinstance(schema, bool) else schema


def types(schema):
    of = schema.get("type", [])
    return set(of if isinstance(of, list) else [of])


def shown(schema):
    return " or ".join(sorted(types(schema))) or "any"


def series(version):
    """What of a version must not change where nothing breaks (semver.org, 4 and 8)."""
    numbers = [int(part) for part in version.split("-")[0].split(".")]
    kept = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
    return numbers[: kept + 1]


def breaking(old, new):
    """What breaks, and whether the version allows it."""
    return Comparison(old, new).documents(), series(new["info"]["version"]) > series(old["info"]["version"])


if __name__ == "__main__":
    documents = []
    for name in sys.argv[1:3]:
        with open(name, encoding="utf-8") as file:
            documents.append(json.load(file))
    found, allowed = breaking(*documents)
    for line in found:
        print(line, file=sys.stdout if allowed else sys.stderr)
    versions = " to ".join(document["info"]["version"] for document in documents)
    print(f"{len(found)} breaking changes from {versions}" + (", which may break" if allowed else ""))
    sys.exit(bool(found) and not allowed)
