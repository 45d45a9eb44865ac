// Package kernel compares the kernel's version, for features that cannot be found
// in another way.
package kernel

import "fmt"

// AtLeast says whether the running kernel is at least major.minor; false where
// it is not Linux.
func AtLeast(major, minor int) bool { return ReleaseAtLeast(Release(), major, minor) }

// ReleaseAtLeast is AtLeast for the kernel of a release, "6.12.30-amd64" say.
func ReleaseAtLeast(release string, major, minor int) bool {
	var haveMajor, haveMinor int
	if _, err := fmt.Sscanf(release, "%d.%d", &haveMajor, &haveMinor); err != nil {
		return false
	}
	return haveMajor > major || haveMajor == major && haveMinor >= minor
}
