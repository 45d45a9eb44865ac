package nat

import (
	"fmt"

	"github.com/boxwire/boxwire/internal/refuse"
)

// quietSuffix ends the name of the bridge table that drops reports.
const quietSuffix = "-quiet"

// quietComment is the comment of that table. Another NAT may have its guards in a bridge table of the
// same name, which has the comment of a skeleton.
const quietComment = "boxwire quiet group"

// checkQuietGroup refuses a group that links are in by themselves.
func checkQuietGroup(group uint32) error {
	if group == 0 {
		return refuse.Input("the group 0 has every link that was put into no other")
	}
	return nil
}

func quietSubject(group uint32) string { return fmt.Sprintf("link group %d", group) }
