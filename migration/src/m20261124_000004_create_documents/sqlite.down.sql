DROP TABLE documents
