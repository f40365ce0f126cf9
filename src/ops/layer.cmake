target_link_libraries(ttt_ops PRIVATE ${CMAKE_DL_LIBS})
