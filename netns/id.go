package netns

// ID identifies a namespace among those that exist: the device and inode number
// of its file (namespaces(7)). The kernel uses an inode number again after its
// namespace is gone. IDs compare with ==.
type ID struct {
	Dev, Ino uint64
}
