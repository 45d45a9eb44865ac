package netns

// ID identifies a namespace among those that exist: the device and inode number
// of its file (namespaces(7)). The kernel uses an inode number again after its
// namespace is gone; [NS.Cookie] is never used again. IDs compare with ==.
type ID struct {
	Dev, Ino uint64
}

// Owner is the user namespace that a network namespace belongs to: whoever has
// CAP_NET_ADMIN there administers it (user_namespaces(7)).
type Owner struct {
	ID  ID     // of the user namespace's file
	UID uint32 // the user who made it, as the calling thread's user namespace knows him
}
