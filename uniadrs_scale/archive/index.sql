CREATE TABLE IF NOT EXISTS products_index.products (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, record TEXT NOT NULL
)
