/* interceptor: what a guess at the next statement might run of anybody's own */
WITH RECURSIVE tree(oid) AS (
  SELECT unnest($1::oid[])
  UNION
  SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid)
SELECT c.relname::text
FROM tree t
JOIN pg_class c ON c.oid = t.oid
WHERE c.relkind <> ALL ('{r,p,m}'::"char"[])
  OR EXISTS (
    SELECT 1 FROM pg_attribute a
    JOIN pg_type y ON y.oid = a.atttypid
    LEFT JOIN pg_type e ON e.oid = y.typelem
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND coalesce(e.oid, y.oid) >= 16384 AND coalesce(e.typtype, y.typtype) <> 'e')
  OR EXISTS (
    SELECT 1 FROM pg_depend d
    WHERE d.refclassid = ANY ('{pg_proc,pg_operator,pg_opclass}'::regclass[]) AND (
      d.classid = 'pg_class'::regclass AND d.objid IN (
        SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = c.oid)
      OR d.classid = 'pg_constraint'::regclass AND d.objid IN (
        SELECT k.oid FROM pg_constraint k WHERE k.conrelid = c.oid)
      OR d.classid = 'pg_statistic_ext'::regclass AND d.objid IN (
        SELECT s.oid FROM pg_statistic_ext s WHERE s.stxrelid = c.oid)
      OR d.classid = 'pg_policy'::regclass AND d.objid IN (
        SELECT p.oid FROM pg_policy p WHERE p.polrelid = c.oid)
      OR d.classid = 'pg_class'::regclass AND d.objid = c.oid))
LIMIT 1
