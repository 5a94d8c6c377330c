package clientapi

var keyRoutes = []Route{}
