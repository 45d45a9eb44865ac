package nat

// Table is a table of this library, as [ListTables] finds it. A program opens one of its own version
// by its name, to look at it with [Options.ReadOnly].
type Table struct {
	// Name is the name of the nftables table, of the family inet.
	Name string

	// Older says that an older version of this library installed the table. [Open] rebuilds it.
	// With ReadOnly, Open refuses it, as it refuses a newer one.
	Older bool

	// Newer says that a newer version of this library installed the table.
	Newer bool
}
