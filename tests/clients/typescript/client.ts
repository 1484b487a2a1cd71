// What a user of the generated client does, against a running server: API names it, TOKEN is an admin's.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const { API: baseUrl, TOKEN: token } = process.env;
const client = createClient<paths, "application/json">({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

const ada: components["schemas"]["NewUser"] = { email: "ada-ts@example.org", full_name: "Ada Lovelace", role: "member" };
const user = await client.POST("/api/v1/users", { body: ada });
assert.ok(user.data, JSON.stringify(user.error));
assert.equal(user.data.role, "member");

// The same key and body again: the same document.
const body: components["schemas"]["NewDocument"] = {
  user_id: user.data.id,
  bucket: "clinic-documents",
  filename: "scan.pdf",
  content_type: "application/pdf",
  size_bytes: 48213,
  metadata: { pages: 3 },
};
const key = { header: { "Idempotency-Key": '"typescript-1"' } };
const document = await client.POST("/api/v1/documents", { params: key, body });
assert.ok(document.data, JSON.stringify(document.error));
assert.equal(document.data.metadata["pages"], 3);
assert.equal(document.response.headers.get("Idempotency-Replayed"), null);
const again = await client.POST("/api/v1/documents", { params: key, body });
assert.equal(again.data?.id, document.data.id);
assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");

for (const filename of ["a.pdf", "b.pdf"]) {
  const { response } = await client.POST("/api/v1/documents", { body: { ...body, filename } });
  assert.equal(response.status, 201);
}
const names: string[] = [];
let cursor: string | null | undefined;
do {
  const query = { user_id: user.data.id, limit: 2, ...(cursor ? { cursor } : {}) };
  const { data: page, error } = await client.GET("/api/v1/documents", { params: { query } });
  assert.ok(page, JSON.stringify(error));
  names.push(...page.items.map((item) => item.filename));
  cursor = page.next_cursor;
} while (cursor);
assert.deepEqual(names, ["b.pdf", "a.pdf", "scan.pdf"]);

const taken = await client.POST("/api/v1/users", { body: ada });
assert.equal(taken.response.status, 409);
assert.equal(taken.error?.error.code, "RES_002");
const missing = await client.GET("/api/v1/documents/{id}", { params: { path: { id: user.data.id } } });
assert.equal(missing.error?.error.code, "RES_001");

const path = { id: document.data.id };
const etag = document.response.headers.get("ETag");
assert.ok(etag);
const changed = await client.PATCH("/api/v1/documents/{id}", {
  params: { path, header: { "If-Match": etag } },
  body: { status: "completed" },
});
assert.equal(changed.data?.status, "completed");
const deleted = await client.DELETE("/api/v1/documents/{id}", { params: { path } });
assert.equal(deleted.response.status, 204);
console.log("TypeScript: a user, documents, pages, an Idempotency-Key, errors, an ETag");
