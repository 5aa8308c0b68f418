-- Aside, as an operator of its own in the path may be meant by each of that name.
CREATE SCHEMA bag;
GRANT USAGE ON SCHEMA bag TO app;
CREATE EXTENSION hstore SCHEMA bag;
CREATE EXTENSION tablefunc;
CREATE EXTENSION dblink;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION adminpack;
CREATE EXTENSION pg_stat_statements;
GRANT pg_read_all_stats TO app;
SET ROLE app;
SELECT lo_from_bytea(4711, 'zqx-sesame-4711');
CREATE SEQUENCE counter;
CREATE TYPE pair AS (a text, b text);
CREATE TABLE people (id int PRIMARY KEY, name text, code text UNIQUE, number text, tags text[], loud text
    GENERATED ALWAYS AS (upper(code)) STORED);
INSERT INTO people SELECT n, 'name' || n, c, '4111111111111111', ARRAY[c] FROM
    (VALUES (1, 'zqx-sesame-4711'), (2, 'zqx-pepper-8812'), (3, 'zqx-tarragon-93')) AS v(n, c);
CREATE TABLE parts (id int, part_code text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts SELECT id, code FROM people;
CREATE TABLE heirs (more text) INHERITS (people);
INSERT INTO heirs (id, code) VALUES (9, 'zqx-tarragon-93');
CREATE VIEW renamed AS SELECT id AS number_of, code AS harmless, name FROM people;
CREATE VIEW nested AS SELECT harmless AS plain, number_of FROM renamed;
CREATE VIEW computed AS SELECT id, code || '!' AS loud, id + 1 AS next FROM people;
CREATE MATERIALIZED VIEW kept AS SELECT code AS k FROM people;
CREATE TABLE talk (id int, body text, doc jsonb, raw bytea, num numeric, big bigint, mails text[], p pair);
INSERT INTO talk VALUES (1, 'mail walter.white@example.org now, ssn 078-05-1120',
    '{"m": "walter.white@example.org", "n": 4111111111111111}', 'walter.white@example.org', 4111111111111111,
    4111111111111111, ARRAY['walter.white@example.org'], ROW('walter.white@example.org', '078-05-1120'));
CREATE TABLE things (id int, kind text);
INSERT INTO things SELECT id, code FROM people;
CREATE SCHEMA clean;
CREATE TABLE clean.things (id int, kind text);
CREATE TABLE scratch (id int, body text);
CREATE FUNCTION peep() RETURNS text LANGUAGE sql STABLE AS 'SELECT code FROM people LIMIT 1';
CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE NOTICE ''%'', (SELECT code FROM people LIMIT 1); RETURN 1; END';
CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''%'', (SELECT code FROM people LIMIT 1) USING DETAIL = (SELECT code FROM people LIMIT 1); END';
CREATE TABLE twice (id int, a_code text);
INSERT INTO twice SELECT n, code FROM people, generate_series(1, 2) AS n;
CREATE TABLE refs (id int, r_code text REFERENCES people (code));
INSERT INTO refs SELECT id, code FROM people WHERE id < 4;
CREATE TABLE keys (k text PRIMARY KEY);
CREATE TABLE checked (id int, c_code text NOT NULL CHECK (c_code LIKE 'zqx%'));
INSERT INTO checked SELECT id, code FROM people WHERE id < 4;
CREATE FUNCTION everyone() RETURNS SETOF people LANGUAGE sql STABLE AS 'SELECT * FROM ONLY people';
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE NOTICE ''%'', (SELECT code FROM people LIMIT 1); RETURN NEW; END';
CREATE TABLE noisy (id int);
CREATE TRIGGER noise BEFORE INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION keep();
ANALYZE people, twice;
