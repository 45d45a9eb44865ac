package limit

import (
	"fmt"
	"os"
	"strings"
)

// Namespaces says which limit forbids one more namespace of the kinds: "net", "mnt",
// "user" (namespaces(7), user_namespaces(7)). The kernel answers ENOSPC for the limits of
// the calling process's user namespace, those of all above it, and the depth of
// user namespaces.
func Namespaces(kinds ...string) string {
	var reached []string
	for _, kind := range kinds {
		name := "user.max_" + kind + "_namespaces"
		value := setting(name)
		if value == "0" {
			return fmt.Sprintf("the setting %s is 0", name)
		}
		reached = append(reached, fmt.Sprintf("%s (%s in this user namespace, and that of each above it)", name, value))
		if kind == "user" {
			reached = append(reached, "32 user namespaces inside each other")
		}
	}
	return "a limit is reached: " + strings.Join(reached, ", or ")
}

// Setting says that the limit with the name of a setting is reached.
func Setting(name string) string {
	return fmt.Sprintf("the limit %s (%s) is reached", name, setting(name))
}

func setting(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return "not known"
	}
	return strings.TrimSpace(string(b))
}
