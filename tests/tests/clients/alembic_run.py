"""Alembic as it is used: two revisions up, a comparison with the models, down, and up again; then one that policy refuses."""
import os
import sys
import textwrap

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

URL = "postgresql+psycopg://whoever:whatever@db.internal/orders?sslmode=verify-full"


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(textwrap.dedent(text))


def revision(name, after, up, down):
    write(f"migrations/versions/{name}.py", f"""
        from alembic import op
        import sqlalchemy as sa
        revision = {name!r}
        down_revision = {after!r}
        def upgrade():
            {up}
        def downgrade():
            {down}
        """)


metadata = sa.MetaData()
sa.Table("invoices", metadata, sa.Column("id", sa.Integer, primary_key=True),
         sa.Column("total", sa.Numeric(10, 2), nullable=False), sa.Column("note", sa.String(50)),
         sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id")), sa.Index("ix_invoices_note", "note"))
sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True))

write("migrations/env.py", """
    import sqlalchemy as sa
    from alembic import context
    engine = sa.create_engine(context.config.get_main_option("url"))
    def ours(thing, name, kind, reflected, other):
        return kind != "table" or name == "invoices"
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=context.config.attributes["metadata"],
                          include_object=ours)
        with context.begin_transaction():
            context.run_migrations()
    """)
write("migrations/script.py.mako", "")
revision("one", None,
         "op.create_table('invoices', sa.Column('id', sa.Integer, primary_key=True),"
         " sa.Column('total', sa.Numeric(10, 2), nullable=False), sa.Column('user_id', sa.Integer, sa.ForeignKey('users.id')))",
         "op.drop_table('invoices')")
revision("two", "one",
         "op.add_column('invoices', sa.Column('note', sa.String(50)));"
         " op.create_index('ix_invoices_note', 'invoices', ['note']);"
         " op.execute(\"INSERT INTO invoices (total, user_id) SELECT 10, id FROM users WHERE id <= 3\")",
         "op.drop_index('ix_invoices_note'); op.drop_column('invoices', 'note')")

config = Config()
config.set_main_option("script_location", "migrations")
config.set_main_option("url", URL)
config.attributes["metadata"] = metadata
command.upgrade(config, "head")
print("up: done")
command.check(config)
print("compared: done")
command.downgrade(config, "base")
command.upgrade(config, "head")
print("again: done")
revision("three", "two", "op.drop_column('invoices', 'note'); op.execute('GRANT ALL ON invoices TO reader')", "pass")
try:
    command.upgrade(config, "head")
except sa.exc.ProgrammingError as error:
    print("refused:", error.orig.sqlstate, error.orig)
with sa.create_engine(URL).connect() as connection:
    print("at:", connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())
    print("rows:", connection.execute(sa.text("SELECT count(note) + count(*) FROM invoices")).scalar())
sys.exit(0)
