package clientapi

var mediaRoutes = []Route{}
