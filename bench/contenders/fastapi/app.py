"""FastAPI, SQLAlchemy and asyncpg as teams write it: the entry of the audit log in the request's own transaction."""

import base64
import os
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import jwt
from cryptography.hazmat.primitives.serialization import load_der_private_key
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, DateTime, FetchedValue, Text, select, text
from sqlalchemy.dialects.postgresql import INET, JSONB, UUID
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ISSUER = "bulkhead-development"
PAGE = 50
url = os.environ["DATABASE_URL"].split("?")[0].replace("postgres://", "postgresql+asyncpg://", 1)
engine = create_async_engine(url, pool_size=10, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
with open(os.environ["DEVELOPMENT_KEY_FILE"], "rb") as file:
    key = load_der_private_key(file.read(), None).public_key()
known: dict[str, dict[str, Any]] = {}
app = FastAPI()


def uuid7() -> uuid.UUID:
    """RFC 9562, section 5.7; Python has it from 3.14 on."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return uuid.UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    tenant_id: Mapped[uuid.UUID]
    user_id: Mapped[uuid.UUID]
    storage_key: Mapped[str]
    bucket: Mapped[str]
    filename: Mapped[str]
    content_type: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Text, default="processing")
    # Named otherwise: SQLAlchemy keeps `metadata` for itself.
    properties: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())


class AuditLog(Base):
    __tablename__ = "audit_logs"
    id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    tenant_id: Mapped[uuid.UUID]
    user_id: Mapped[uuid.UUID | None]
    action: Mapped[str]
    resource_type: Mapped[str]
    resource_id: Mapped[uuid.UUID | None]
    ip: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    properties: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)


class NewDocument(BaseModel):
    model_config = ConfigDict(extra="forbid")
    bucket: str
    filename: str
    content_type: str
    size_bytes: int
    metadata: dict[str, Any] = {}


class ShownDocument(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: uuid.UUID
    user_id: uuid.UUID
    storage_key: str
    bucket: str
    filename: str
    content_type: str
    size_bytes: int
    status: str
    metadata: dict[str, Any] = Field(validation_alias="properties")
    created_at: datetime
    updated_at: datetime


class ShownPage(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    items: list[ShownDocument]
    next_cursor: str | None


def claims(authorization: Annotated[str, Header()]) -> dict[str, Any]:
    """What the bearer token says; each is checked once."""
    token = authorization.removeprefix("Bearer ")
    found = known.get(token)
    if found is None:
        try:
            found = jwt.decode(token, key, algorithms=["EdDSA"], audience=ISSUER, issuer=ISSUER)
        except jwt.InvalidTokenError as error:
            raise HTTPException(401) from error
        known[token] = found
    if time.time() > found["exp"]:
        raise HTTPException(401)
    return found


class Unit:
    """A transaction of the caller's tenant."""

    def __init__(self, session: AsyncSession, tenant: uuid.UUID, user: uuid.UUID, role: str, request: Request) -> None:
        self.session, self.tenant, self.user, self.role, self.request = session, tenant, user, role, request

    async def end(self, action: str, resource: uuid.UUID | None, said: dict[str, Any]) -> None:
        """Appends the entry and commits."""
        self.session.add(
            AuditLog(
                id=uuid7(), tenant_id=self.tenant, user_id=self.user, action=action, resource_type="documents",
                resource_id=resource, ip=self.request.client.host,
                user_agent=self.request.headers.get("user-agent"), properties=said,
            )
        )
        await self.session.commit()


async def unit(request: Request, claims: Annotated[dict[str, Any], Depends(claims)]) -> AsyncIterator[Unit]:
    async with sessions() as session:
        found = await session.execute(
            text("SELECT * FROM find_caller(:tenant, :subject)"), {"tenant": claims["tenant_id"], "subject": claims["sub"]}
        )
        caller = found.one_or_none()
        role = claims.get("role") or (caller and caller.role)
        if caller is None or caller.status == "suspended" or caller.tenant_deleted or caller.user_deleted or not role:
            raise HTTPException(403)
        await session.execute(
            text("SELECT set_config('role', 'bulkhead_app', true), set_config('app.current_tenant_id', :tenant, true)"),
            {"tenant": str(caller.tenant_id)},
        )
        yield Unit(session, caller.tenant_id, caller.user_id, role, request)


@app.get("/api/v1/health/live")
async def live() -> dict[str, Any]:
    return {"status": "ok", "timestamp": int(time.time())}


@app.get("/api/v1/health/ready")
async def ready() -> dict[str, Any]:
    async with sessions() as session:
        sql = text("SELECT count(*) FROM seaql_migrations WHERE NOT pg_is_in_recovery()")
        migrations = await session.scalar(sql)
    return {"status": "ready" if migrations else "unavailable", "migrations": migrations}


@app.get("/api/v1/documents/{id}", response_model=ShownDocument)
async def read(id: uuid.UUID, unit: Annotated[Unit, Depends(unit)]) -> Any:
    query = select(Document).where(
        Document.tenant_id == unit.tenant, Document.id == id, Document.deleted_at.is_(None)
    )
    row = await unit.session.scalar(query)
    await unit.end("DATA_ACCESS", id, {"found": row is not None})
    if row is None:
        raise HTTPException(404)
    return row


@app.get("/api/v1/documents", response_model=ShownPage)
async def list_documents(unit: Annotated[Unit, Depends(unit)]) -> Any:
    query = (
        select(Document).where(Document.tenant_id == unit.tenant, Document.deleted_at.is_(None))
        .order_by(Document.created_at.desc(), Document.id.desc()).limit(PAGE + 1)
    )
    rows = list(await unit.session.scalars(query))
    items, more = rows[:PAGE], len(rows) > PAGE
    ends = "".join(base64.urlsafe_b64encode(row.id.bytes[10:])[:7].decode() for row in items)
    times = [int(row.created_at.timestamp() * 1000) for row in items]
    said = {"count": len(items), "id_ends": ends, "newest_ms": max(times, default=None), "oldest_ms": min(times, default=None)}
    await unit.end("DATA_ACCESS", None, said)
    place = f"{items[-1].created_at.isoformat()}/{items[-1].id}" if more else ""
    return {"items": items, "next_cursor": base64.urlsafe_b64encode(place.encode()).decode() or None}


@app.post("/api/v1/documents", status_code=201, response_model=ShownDocument)
async def create(new: NewDocument, unit: Annotated[Unit, Depends(unit)]) -> Any:
    if unit.role not in ("admin", "member"):
        raise HTTPException(403)
    id = uuid7()
    row = Document(
        id=id, tenant_id=unit.tenant, user_id=unit.user, storage_key=f"{unit.tenant}/{id}", bucket=new.bucket,
        filename=new.filename, content_type=new.content_type, size_bytes=new.size_bytes, properties=new.metadata,
    )
    unit.session.add(row)
    await unit.session.flush()
    await unit.end("CREATED", id, {})
    return row
