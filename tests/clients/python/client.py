"""What a user of the generated client does, against a running server: API names it, TOKEN is an admin's."""

import os
from uuid import UUID

from bulkhead_client import AuthenticatedClient
from bulkhead_client.api.documents import create_document, delete_document, get_document, list_documents, update_document
from bulkhead_client.api.users import create_user
from bulkhead_client.models import Document, DocumentList, DocumentStatus, ErrorBody, NewDocument, NewUser, Role, UpdateDocument, User
from bulkhead_client.types import UNSET, Unset

client = AuthenticatedClient(base_url=os.environ["API"], token=os.environ["TOKEN"])


def new_document(user_id: UUID, filename: str) -> NewDocument:
    return NewDocument.from_dict(
        {
            "user_id": str(user_id),
            "bucket": "clinic-documents",
            "filename": filename,
            "content_type": "application/pdf",
            "size_bytes": 48213,
            "metadata": {"pages": 3},
        }
    )


ada = NewUser(email="ada-py@example.org", full_name="Ada Lovelace", role=Role.MEMBER)
user = create_user.sync(client=client, body=ada)
assert isinstance(user, User), user
assert user.role == Role.MEMBER

# The same key and body again: the same document.
key = '"python-1"'
first = create_document.sync_detailed(client=client, body=new_document(user.id, "scan.pdf"), idempotency_key=key)
assert isinstance(first.parsed, Document), first
assert first.parsed.metadata["pages"] == 3
assert "Idempotency-Replayed" not in first.headers
again = create_document.sync_detailed(client=client, body=new_document(user.id, "scan.pdf"), idempotency_key=key)
assert isinstance(again.parsed, Document) and again.parsed.id == first.parsed.id, again
assert again.headers["Idempotency-Replayed"] == "true"

for filename in ["a.pdf", "b.pdf"]:
    assert create_document.sync_detailed(client=client, body=new_document(user.id, filename)).status_code == 201
names: list[str] = []
cursor: str | None | Unset = UNSET
while cursor is not None:
    page = list_documents.sync(client=client, user_id=user.id, limit=2, cursor=cursor)
    assert isinstance(page, DocumentList), page
    names += [item.filename for item in page.items]
    cursor = page.next_cursor
assert names == ["b.pdf", "a.pdf", "scan.pdf"], names

taken = create_user.sync_detailed(client=client, body=ada)
assert taken.status_code == 409 and isinstance(taken.parsed, ErrorBody), taken
assert taken.parsed.error.code == "RES_002", taken
missing = get_document.sync(id=user.id, client=client)
assert isinstance(missing, ErrorBody) and missing.error.code == "RES_001", missing

changed = update_document.sync(
    id=first.parsed.id, client=client, body=UpdateDocument(status=DocumentStatus.COMPLETED), if_match=first.headers["ETag"]
)
assert isinstance(changed, Document) and changed.status == DocumentStatus.COMPLETED, changed
assert delete_document.sync_detailed(id=first.parsed.id, client=client).status_code == 204
print("Python: a user, documents, pages, an Idempotency-Key, errors, an ETag")
