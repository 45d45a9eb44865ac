package route

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Table is the number of a routing table (linux/rtnetlink.h: RT_TABLE_*), any
// 32-bit number.
type Table uint32

// The tables that every namespace has.
const (
	TableDefault Table = 253 // empty; looked at last
	TableMain    Table = 254 // where routes go unless told otherwise
	TableLocal   Table = 255 // the kernel's own: local and broadcast addresses
)

var tableNames = map[Table]string{TableDefault: "default", TableMain: "main", TableLocal: "local"}

// String returns the names main, local and default, and of other tables the
// number: names that a machine gives are in [TableNames].
func (t Table) String() string { return nameOf(tableNames, t) }

// TableNamed returns the table that is known by a name on this machine, or whose
// number is given as text. The names are those of ip-route(8), in the files of
// [TableNames]. A name that is unknown is os.ErrInvalid.
func TableNamed(name string) (Table, error) {
	if t, ok := valueOf(tableNames, name, 32); ok {
		return t, nil
	}
	names, err := TableNames()
	if err != nil {
		return 0, err
	}
	for t, n := range names {
		if n == name {
			return t, nil
		}
	}
	return 0, refuse.Input("the table %q is unknown: it is not in rt_tables", name)
}

// TableNames returns the names that this machine has for tables: main, local and
// default, and what is in rt_tables and rt_tables.d/*.conf below
// /usr/lib/iproute2, /usr/share/iproute2 and /etc/iproute2. Of several names of a
// number the last one read counts, as for ip-route(8). Files that are not there
// are passed over, and so are lines without a number.
func TableNames() (map[Table]string, error) {
	return readTables("/usr/lib/iproute2", "/usr/share/iproute2", "/etc/iproute2")
}

func readTables(dirs ...string) (map[Table]string, error) {
	names := map[Table]string{}
	for t, n := range tableNames {
		names[t] = n
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "rt_tables.d", "*.conf"))
		if err != nil {
			return nil, err
		}
		for _, file := range append([]string{filepath.Join(dir, "rt_tables")}, files...) {
			if err := readTable(file, names); err != nil {
				return nil, err
			}
		}
	}
	return names, nil
}

func readTable(file string, names map[Table]string) error {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[0], 0, 32); err == nil {
			names[Table(n)] = fields[1]
		}
	}
	return s.Err()
}
