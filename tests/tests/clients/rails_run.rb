# Rails' migrations as they are used: two up, one back, up again; then one that policy refuses.
require "active_record"
require "fileutils"

ActiveRecord::Base.establish_connection(
  adapter: "postgresql", host: "db.internal", database: "orders", username: "whoever", password: "whatever",
  sslmode: "verify-full")
ActiveRecord::Migration.verbose = false

def migration(number, name, body)
  FileUtils.mkdir_p("migrate")
  File.write("migrate/#{number}_#{name}.rb", "class #{name.camelize} < ActiveRecord::Migration[6.1]\n#{body}\nend\n")
end

def context
  ActiveRecord::MigrationContext.new("migrate", ActiveRecord::SchemaMigration)
end

migration(1, "make_invoices", <<~RUBY)
  def change
    create_table :invoices do |t|
      t.references :user, foreign_key: true
      t.decimal :total, precision: 10, scale: 2, null: false
      t.timestamps
    end
  end
RUBY
migration(2, "note_invoices", <<~RUBY)
  def up
    add_column :invoices, :note, :string, limit: 50
    add_index :invoices, :note
    execute "INSERT INTO invoices (user_id, total, created_at, updated_at)
             SELECT id, 10, now(), now() FROM users WHERE id <= 3"
  end

  def down
    execute "DELETE FROM invoices"
    remove_column :invoices, :note
  end
RUBY

class Invoice < ActiveRecord::Base
end

context.migrate
puts "up: #{context.current_version}"
context.rollback
puts "back: #{context.current_version}"
context.migrate
Invoice.reset_column_information
puts "again: #{context.current_version}, columns: #{Invoice.column_names.join(' ')}"

migration(3, "give_invoices_away", <<~RUBY)
  def up
    add_column :invoices, :never, :integer
    execute "GRANT ALL ON invoices TO PUBLIC"
  end
RUBY
begin
  context.migrate
rescue StandardError => error
  cause = error.cause || error
  cause = cause.cause while cause.cause
  puts "refused: #{cause.result.error_field(PG::Result::PG_DIAG_SQLSTATE)} #{cause.message}"
end
Invoice.reset_column_information
puts "at: #{context.current_version}, rows: #{Invoice.count}, columns: #{Invoice.column_names.size}"
