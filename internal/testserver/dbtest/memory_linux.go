package dbtest

import "syscall"

// memoryDir is a folder in memory with room for a cluster, "" if there is none. A new database is some three hundred new
// files, which take a disk ten times as long.
func memoryDir() string {
	const (
		dir   = "/dev/shm"
		tmpfs = 0x01021994
		room  = 4 << 30 // the log takes up to 1 GiB
	)
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil || fs.Type != tmpfs || int64(fs.Bavail)*fs.Bsize < room { //nolint:gosec // blocks of a memory
		return ""
	}
	return dir
}
